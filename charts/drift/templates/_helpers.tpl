{{/* Name of the operator's objects. */}}
{{- define "drift.name" -}}
{{- default "drift-operator" .Values.fullnameOverride -}}
{{- end -}}

{{/* Of cluster-wide objects: releases in several namespaces must not share them. */}}
{{- define "drift.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "drift.name" .) -}}
{{- end -}}

{{- define "drift.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "drift.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is required where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The services' NetworkPolicies let in pods of this name, so it does not follow the release's. */}}
{{- define "drift.selectorLabels" -}}
app.kubernetes.io/name: drift-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* All but those that a pod is selected by. */}}
{{- define "drift.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: drift
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "drift.labels" -}}
{{ include "drift.selectorLabels" . }}
{{ include "drift.commonLabels" . }}
{{- end -}}

{{/* Of the pods of hooks: nothing that selects the operator may select them. */}}
{{- define "drift.hookLabels" -}}
app.kubernetes.io/name: drift-hook
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "drift.commonLabels" . }}
{{- end -}}

{{/* Full name of an image: (list $ "operator") */}}
{{- define "drift.image" -}}
{{- $root := index . 0 -}}
{{- $all := $root.Values.image -}}
{{- $own := index $all (index . 1) -}}
{{- $name := $own.repository -}}
{{- with $all.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- $tag := coalesce $own.tag $all.tag $root.Chart.AppVersion -}}
{{- if $own.digest -}}
{{- printf "%s:%s@%s" $name $tag $own.digest -}}
{{- else -}}
{{- printf "%s:%s" $name $tag -}}
{{- end -}}
{{- end -}}

{{- define "drift.metricsService" -}}
{{- printf "%s-metrics" (include "drift.name" .) -}}
{{- end -}}

{{/* The operator's options: drift_operator.options.OperatorOptions as JSON. $(POD_ID) is filled in by the kubelet. */}}
{{- define "drift.options" -}}
{{- $options := dict
  "engine_image" (include "drift.image" (list . "engine"))
  "router_image" (include "drift.image" (list . "router"))
  "image_pull_policy" .Values.image.pullPolicy
  "image_pull_secrets" .Values.services.imagePullSecrets
  "namespaces" .Values.watch.namespaces
  "own_namespace" .Release.Namespace
  "service" (include "drift.name" .)
  "api_server_ports" .Values.networkPolicy.apiServer.ports
  "identity" "$(POD_ID)"
  "lease" (include "drift.name" .)
  "cluster_name" .Values.clusterName
  "console" .Values.console.enabled
  "console_hosts" .Values.console.hosts
  "log_level" .Values.log.level
-}}
{{- if .Values.externalMetrics.enabled -}}
{{- $_ := set $options "external_metrics_port" (int .Values.externalMetrics.port) -}}
{{- $_ := set $options "external_metrics_service" (include "drift.metricsService" .) -}}
{{- end -}}
{{- toJson $options -}}
{{- end -}}

{{/* Of every container of this chart: the restricted Pod Security Standard, and a read-only root. */}}
{{- define "drift.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What places and pulls every pod of this chart. */}}
{{- define "drift.podPlacement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Whether an optional object is made: (list $ mode "group/version/Kind") */}}
{{- define "drift.wanted" -}}
{{- $root := index . 0 -}}
{{- $mode := index . 1 -}}
{{- if or (eq $mode "Enabled") (and (eq $mode "Auto") ($root.Capabilities.APIVersions.Has (index . 2))) }}yes{{ end -}}
{{- end -}}

{{/* Where `helm test` asks. */}}
{{- define "drift.testNamespace" -}}
{{- $watched := .Values.watch.namespaces -}}
{{- $home := .Release.Namespace -}}
{{- if and $watched (not (has $home $watched)) }}{{ $home = first $watched }}{{ end -}}
{{- default $home .Values.test.namespace -}}
{{- end -}}
