"""The page in headless Chromium, against a real server with the bundled model."""
