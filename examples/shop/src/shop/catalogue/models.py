"""What the shop sells."""

from __future__ import annotations

from django.db import models
from django.urls import reverse


class Product(models.Model):
    """Something that can be bought."""

    name = models.CharField(max_length=80)
    slug = models.SlugField(unique=True)
    summary = models.CharField(max_length=160)
    description = models.TextField()
    price = models.DecimalField(max_digits=7, decimal_places=2, help_text="in euros")
    stock = models.PositiveIntegerField(default=0)

    class Meta:
        """The cheapest comes first."""

        ordering = ["price", "name"]
        constraints = [
            models.CheckConstraint(condition=models.Q(price__gt=0), name="price_positive"),
        ]

    def __str__(self) -> str:
        """Return the name, as the admin shows it."""
        return self.name

    def get_absolute_url(self) -> str:
        """Return the address of the product's page."""
        return reverse("product", args=[self.slug])
