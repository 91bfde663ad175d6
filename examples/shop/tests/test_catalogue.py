"""The shop's pages; run them with ``bin/django test examples/shop/tests``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from unittest import mock

from django.core.management import call_command
from django.db import DatabaseError
from django.test import Client, TestCase, override_settings
from django.urls import reverse
from shop.catalogue.models import Product

HASHED = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "shop.staticfiles.HashedStaticFiles"},
}
PLAIN = HASHED | {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
}


@override_settings(STORAGES=PLAIN)
class PagesTest(TestCase):
    def test_the_list_shows_the_first_products_cheapest_first(self) -> None:
        response = self.client.get(reverse("products"))
        names = re.findall(r'<h2><a href="/products/[a-z-]+/">(.*?)</a></h2>', response.text)
        self.assertEqual(
            names, ["Half a dozen", "Baker&#x27;s dozen", "Quail eggs", "The crate"]
        )

    def test_a_product_has_a_page_that_tells_whether_it_can_be_had(self) -> None:
        self.assertContains(self.client.get("/products/half-dozen/"), "120 in stock")
        self.assertContains(self.client.get("/products/crate/"), "Sold out")

    def test_an_unknown_product_is_not_found_in_the_shops_own_words(self) -> None:
        response = self.client.get("/products/dragon/")
        self.assertContains(response, "That nest is empty", status_code=404)

    def test_the_list_can_be_empty(self) -> None:
        Product.objects.all().delete()
        self.assertContains(self.client.get("/"), "The hens are on holiday.")


class HealthTest(TestCase):
    def test_healthy(self) -> None:
        response = self.client.get("/health/")
        self.assertEqual((response.status_code, response.json()), (200, {"status": "ok"}))
        self.assertIn("no-store", response["Cache-Control"])

    def test_without_its_database_the_shop_is_not_healthy_and_gives_no_details(self) -> None:
        broken = DatabaseError("could not connect to secret-host")
        with mock.patch.object(Product.objects, "exists", side_effect=broken):
            response = self.client.get("/health/")
        self.assertEqual(response.status_code, 503)
        self.assertEqual(response.json(), {"status": "failing", "database": "DatabaseError"})


@override_settings(
    ALLOWED_HOSTS=["localhost"],
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    STORAGES=PLAIN,
)
class LoginTest(TestCase):
    """What nginx must pass on for a form to be accepted."""

    def log_in(self, host: str, origin: str, proto: str) -> int:
        browser = Client(enforce_csrf_checks=True, HTTP_HOST=host, HTTP_X_FORWARDED_PROTO=proto)
        browser.get("/admin/login/")
        form = {
            "csrfmiddlewaretoken": browser.cookies["csrftoken"].value,
            "username": "nobody",
            "password": "wrong",
        }
        return browser.post("/admin/login/", form, HTTP_ORIGIN=origin).status_code

    def test_the_port_that_the_browser_sees(self) -> None:
        self.assertEqual(self.log_in("localhost:8080", "http://localhost:8080", "http"), 200)
        self.assertEqual(self.log_in("localhost", "http://localhost:8080", "http"), 403)

    def test_the_scheme_that_the_browser_sees(self) -> None:
        self.assertEqual(self.log_in("localhost", "https://localhost", "https"), 200)
        self.assertEqual(self.log_in("localhost", "https://localhost", "http"), 403)


class StaticFilesTest(TestCase):
    def test_every_static_file_of_a_page_is_there_under_a_name_with_its_hash(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            with override_settings(STATIC_ROOT=directory, STORAGES=HASHED):
                call_command("collectstatic", interactive=False, verbosity=0)
                page = self.client.get("/").text
            collected = {
                path.relative_to(directory).as_posix(): path
                for path in Path(directory).rglob("*")
            }
            names = re.findall(r'(?:src|href)="/static/(.*?)"', page)
            self.assertEqual(len(names), 3)
            for name in names:
                # what nginx takes as the sign that a file never changes
                self.assertRegex(name, r"\.[0-9a-f]{12}\.[^/]+$")
                self.assertIn(name, collected)
            style = next(collected[name] for name in names if name.endswith(".css"))
            self.assertRegex(style.read_text(), r'url\("speckles\.[0-9a-f]{12}\.svg"\)')
            manifest = collected["staticfiles.json"].read_text()
            listed = re.findall(r'"([^"]+)": "[^"]+\.[0-9a-f]{12}\.', manifest)
            self.assertEqual(listed, sorted(listed))
