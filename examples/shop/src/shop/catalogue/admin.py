"""The catalogue in Django's admin."""

from __future__ import annotations

from django.contrib import admin

from shop.catalogue.models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Products, with price and stock to be changed in the list."""

    list_display = ["name", "price", "stock"]
    list_editable = ["price", "stock"]
    prepopulated_fields = {"slug": ["name"]}
    search_fields = ["name", "summary"]
