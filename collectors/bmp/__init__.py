"""BMP: routers' byte streams to routes, samples of them, and alarms of BGP peers."""
