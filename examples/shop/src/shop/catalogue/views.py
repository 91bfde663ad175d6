"""The shop's pages."""

from __future__ import annotations

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.generic import DetailView, ListView

from shop.catalogue.models import Product


class ProductList(ListView):
    """Everything that is for sale."""

    model = Product
    extra_context = {"greeting": settings.GREETING}


class ProductDetail(DetailView):
    """One product."""

    model = Product


@never_cache
def health(request: HttpRequest) -> JsonResponse:
    """Tell whether the shop can do its work: 200, or 503 without its database."""
    try:
        Product.objects.exists()
    except DatabaseError as error:
        # The class says enough; the text could name hosts or paths to a stranger.
        return JsonResponse({"status": "failing", "database": type(error).__name__}, status=503)
    return JsonResponse({"status": "ok"})
