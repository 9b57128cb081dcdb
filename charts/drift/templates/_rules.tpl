{{/*
What the operator may do where services are: it writes nothing into a DriftService but its status. It makes a Role for
each service's routers, and may give away only rights that it has itself: endpointslices.
*/}}
{{- define "drift.rules" -}}
- apiGroups: [drift.ai]
  resources: [driftservices]
  verbs: [get, list, watch]
- apiGroups: [drift.ai]
  resources: [driftservices/status]
  verbs: [patch]
# Owner references that hold back their owner's deletion.
- apiGroups: [drift.ai]
  resources: [driftservices/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: &own [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: *own
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: *own
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: *own
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: *own
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: *own
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: *own
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: *own
# By name only: the control token of each service. It goes with its service, by its owner reference.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}
