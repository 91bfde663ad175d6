"""Which view answers which address."""

from __future__ import annotations

from django.urls import path
from visits.views import welcome

urlpatterns = [path("", welcome)]
