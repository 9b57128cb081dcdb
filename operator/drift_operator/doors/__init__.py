"""How autoscalers and people read the operator: external metrics for HPAs, JSON for KEDA, Prometheus, health."""
