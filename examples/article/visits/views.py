"""The only page."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def welcome(request: HttpRequest) -> HttpResponse:
    """Greet a visitor, and tell how often he has been here."""
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    return render(
        request, "visits/welcome.html", {"visits": visits, "site_url": settings.SITE_URL}
    )
