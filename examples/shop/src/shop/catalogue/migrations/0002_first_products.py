"""Fill the shelves, so that there is something to see."""

from __future__ import annotations

from decimal import Decimal

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

PRODUCTS = (
    {
        "slug": "half-dozen",
        "name": "Half a dozen",
        "summary": "Six brown eggs for a quiet weekend.",
        "description": "Laid this week, collected by hand, in a box of recycled pulp.",
        "price": Decimal("2.40"),
        "stock": 120,
    },
    {
        "slug": "bakers-dozen",
        "name": "Baker's dozen",
        "summary": "Thirteen eggs: one more than was promised.",
        "description": "Mixed sizes for cakes and batter. The thirteenth is on the house.",
        "price": Decimal("4.80"),
        "stock": 64,
    },
    {
        "slug": "quail",
        "name": "Quail eggs",
        "summary": "Eighteen speckled ones, each a mouthful.",
        "description": "Four minutes in boiling water, then cold water, then patience.",
        "price": Decimal("5.90"),
        "stock": 30,
    },
    {
        "slug": "crate",
        "name": "The crate",
        "summary": "Thirty eggs on a tray, stackable.",
        "description": "Every egg in its own place, nothing rattles, and the lid fits.",
        "price": Decimal("9.60"),
        "stock": 0,
    },
)


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Add the products."""
    product = apps.get_model("catalogue", "Product")
    product.objects.bulk_create(product(**values) for values in PRODUCTS)


class Migration(migrations.Migration):
    """The first products; taking it back leaves them, as people may have changed them."""

    dependencies = [("catalogue", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
