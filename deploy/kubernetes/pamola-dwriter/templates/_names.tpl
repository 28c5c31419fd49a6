{{/* Name of the release's cluster; Dask's operator takes 53 characters at most. */}}
{{- define "pamola.cluster" -}}
{{- .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- end }}

{{/* Name of the job, and of the cluster that the operator makes for it. */}}
{{- define "pamola.job" -}}
{{- printf "%s-benchmark" (include "pamola.cluster" .) -}}
{{- end }}

{{/* The clusters of this release, for selectors. */}}
{{- define "pamola.clusters" -}}
{{- $names := list -}}
{{- if .Values.cluster.enabled }}{{ $names = append $names (include "pamola.cluster" .) }}{{ end -}}
{{- if .Values.job.enabled }}{{ $names = append $names (include "pamola.job" .) }}{{ end -}}
{{- if not $names }}{{ fail "enable cluster or job: there is nothing to install" }}{{ end -}}
{{- toJson $names -}}
{{- end }}

{{- define "pamola.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pamola.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "pamola.identity" -}}
{{- default (include "pamola.cluster" .) .Values.identity.name -}}
{{- end }}

{{- define "pamola.tlsSecret" -}}
{{- default (printf "%s-tls" (include "pamola.cluster" .)) .Values.tls.existingSecret -}}
{{- end }}

{{/* Address of a cluster's scheduler: dict "root" . "cluster" NAME. */}}
{{- define "pamola.address" -}}
tls://{{ .cluster }}-scheduler.{{ .root.Release.Namespace }}.svc:8786
{{- end }}

{{/* Selects pods by role: dict "root" . "components" (list ...). */}}
{{- define "pamola.selector" -}}
matchExpressions:
  - key: dask.org/cluster-name
    operator: In
    values: {{ include "pamola.clusters" .root }}
  - key: dask.org/component
    operator: In
    values: {{ toJson .components }}
{{- end }}
