"""The HTTP gateway: an OpenAI-compatible API over the serving engine, the feedback API and the page's own routes."""
