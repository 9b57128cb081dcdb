"""What a DriftService becomes on a cluster: pure builders of Kubernetes objects. Nothing here talks to a cluster."""
