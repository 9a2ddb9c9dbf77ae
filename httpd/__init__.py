"""HTTP served to whoever reaches the port: aiohttp's server with the limits that it does not have, health, metrics."""
