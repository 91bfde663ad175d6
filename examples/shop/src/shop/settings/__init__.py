"""Settings: ``shop.settings.development`` and ``shop.settings.production``."""
