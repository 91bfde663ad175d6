"""Where images and packages come from and go to."""
