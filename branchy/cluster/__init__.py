"""A Kubernetes cluster: the manifests as plain data, what is decided about them, and the API server."""
