{{/* What every pod has: no user that is root, no token of the API, no rights beyond its own. */}}
{{- define "pamola.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "pamola.placing" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* What every container has. */}}
{{- define "pamola.container" -}}
image: {{ include "pamola.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* For whatever role: TLS, the log, and the address, which the operator would else say is tcp. */}}
{{- define "pamola.env" -}}
- name: DASK_SCHEDULER_ADDRESS
  value: {{ include "pamola.address" . }}
- name: DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION
  value: "true"
- name: DASK_DISTRIBUTED__COMM__TLS__CA_FILE
  value: /etc/dask/tls/ca.crt
{{- range tuple "SCHEDULER" "WORKER" "CLIENT" }}
- name: DASK_DISTRIBUTED__COMM__TLS__{{ . }}__CERT
  value: /etc/dask/tls/tls.crt
- name: DASK_DISTRIBUTED__COMM__TLS__{{ . }}__KEY
  value: /etc/dask/tls/tls.key
{{- end }}
# One line for each state of a write; Dask's processes say nothing below warnings else.
- name: DASK_LOGGING__PAMOLA_DWRITER
  value: info
{{- end }}

{{/* For workers and jobs alone: where the store is, and keys by reference. */}}
{{- define "pamola.storeEnv" -}}
- name: AWS_DEFAULT_REGION
  value: {{ .Values.store.region | quote }}
{{- with .Values.store.endpointUrl }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- if .Values.store.caConfigMap }}
- name: AWS_CA_BUNDLE
  value: /etc/pamola/ca/ca.crt
{{- end }}
{{- if .Values.store.existingSecret }}
- name: AWS_SHARED_CREDENTIALS_FILE
  value: /etc/pamola/store/credentials
{{- end }}
{{- range .Values.keys.env }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}
{{- end }}

{{- define "pamola.mounts" -}}
- name: tls
  mountPath: /etc/dask/tls
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: scratch
  mountPath: /scratch
{{- end }}

{{- define "pamola.storeMounts" -}}
{{- if .Values.store.existingSecret }}
- name: store
  mountPath: /etc/pamola/store
  readOnly: true
{{- end }}
{{- if .Values.store.caConfigMap }}
- name: store-ca
  mountPath: /etc/pamola/ca
  readOnly: true
{{- end }}
{{- end }}

{{/* dict "root" . "scratch" SIZE */}}
{{- define "pamola.volumes" -}}
- name: tls
  secret:
    secretName: {{ include "pamola.tlsSecret" .root }}
    defaultMode: 288 # 0440: the group is fsGroup
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
- name: scratch
  emptyDir:
    sizeLimit: {{ .scratch }}
{{- end }}

{{- define "pamola.storeVolumes" -}}
{{- with .Values.store.existingSecret }}
- name: store
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440
    items:
      - key: credentials
        path: credentials
{{- end }}
{{- with .Values.store.caConfigMap }}
- name: store-ca
  configMap:
    name: {{ . }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end }}
