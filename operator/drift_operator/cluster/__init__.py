"""The Kubernetes API, as far as the operator needs it: everything here has effects and nothing decides."""
