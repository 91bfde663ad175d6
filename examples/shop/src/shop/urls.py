"""Which view answers which address."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from shop.catalogue import views

urlpatterns = [
    path("", views.ProductList.as_view(), name="products"),
    path("products/<slug:slug>/", views.ProductDetail.as_view(), name="product"),
    path("health/", views.health, name="health"),
    path("admin/", admin.site.urls),
]
