"""Make the table of products."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """The first version of the catalogue."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Product",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=80)),
                ("slug", models.SlugField(unique=True)),
                ("summary", models.CharField(max_length=160)),
                ("description", models.TextField()),
                (
                    "price",
                    models.DecimalField(decimal_places=2, help_text="in euros", max_digits=7),
                ),
                ("stock", models.PositiveIntegerField(default=0)),
            ],
            options={
                "ordering": ["price", "name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("price__gt", 0)), name="price_positive"
                    )
                ],
            },
        ),
    ]
