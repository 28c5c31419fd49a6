{{/* spec of a DaskCluster: dict "root" . "cluster" NAME */}}
{{- define "pamola.clusterSpec" -}}
idleTimeout: {{ .root.Values.cluster.idleTimeout }}
scheduler: {{- include "pamola.scheduler" . | nindent 2 }}
worker: {{- include "pamola.worker" . | nindent 2 }}
{{- end }}

{{- define "pamola.scheduler" -}}
{{- $scheduler := .root.Values.scheduler -}}
spec:
  {{- include "pamola.pod" .root | nindent 2 }}
  {{- include "pamola.placing" $scheduler | nindent 2 }}
  serviceAccountName: {{ include "pamola.cluster" .root }}-scheduler
  terminationGracePeriodSeconds: {{ $scheduler.terminationGracePeriodSeconds }}
  containers:
    - name: scheduler
      {{- include "pamola.container" .root | nindent 6 }}
      args:
        - dask
        - scheduler
        - --protocol=tls
        - --port=8786
        - --dashboard-address=:8787
        - --preload=pamola_dwriter.plugin
      env:
        {{- include "pamola.env" . | nindent 8 }}
        - name: DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES
          value: {{ $scheduler.allowedFailures | quote }}
        # The operator has no certificate, so it cannot ask over TLS; these routes are how it
        # retires workers and learns how many are wanted. The network policy lets it alone in.
        - name: DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES
          value: >-
            ["distributed.http.scheduler.prometheus", "distributed.http.scheduler.info",
            "distributed.http.scheduler.json", "distributed.http.scheduler.api",
            "distributed.http.health", "distributed.http.proxy", "distributed.http.statics"]
        {{- with $scheduler.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: tcp-comm
          containerPort: 8786
          protocol: TCP
        - name: http-dashboard
          containerPort: 8787
          protocol: TCP
      readinessProbe:
        httpGet:
          port: http-dashboard
          path: /health
        periodSeconds: 5
        timeoutSeconds: 3
      # Five minutes: to restart a scheduler that is only busy would lose every write under way.
      livenessProbe:
        httpGet:
          port: http-dashboard
          path: /health
        periodSeconds: 30
        timeoutSeconds: 10
        failureThreshold: 10
      resources: {{- toYaml $scheduler.resources | nindent 8 }}
      volumeMounts:
        {{- include "pamola.mounts" .root | nindent 8 }}
  volumes:
    {{- include "pamola.volumes" (dict "root" .root "scratch" "1Gi") | nindent 4 }}
service:
  type: ClusterIP
  selector:
    dask.org/cluster-name: {{ .cluster }}
    dask.org/component: scheduler
  ports:
    - name: tcp-comm
      protocol: TCP
      port: 8786
      targetPort: tcp-comm
    - name: http-dashboard
      protocol: TCP
      port: 8787
      targetPort: http-dashboard
{{- end }}

{{- define "pamola.worker" -}}
{{- $worker := .root.Values.worker -}}
replicas: {{ $worker.replicas }}
{{- with .root.Values.identity.podLabels }}
metadata:
  labels: {{- toYaml . | nindent 4 }}
{{- end }}
spec:
  {{- include "pamola.pod" .root | nindent 2 }}
  {{- include "pamola.placing" $worker | nindent 2 }}
  serviceAccountName: {{ include "pamola.identity" .root }}
  terminationGracePeriodSeconds: {{ $worker.terminationGracePeriodSeconds }}
  containers:
    - name: worker
      {{- include "pamola.container" .root | nindent 6 }}
      # Fixed ports, for the network policy. The nanny restarts a worker that died within its pod.
      args:
        - dask
        - worker
        - --name=$(DASK_WORKER_NAME)
        - --protocol=tls
        - --worker-port=8789
        - --nanny
        - --nanny-port=8790
        - --nthreads={{ $worker.threads }}
        - --dashboard-address=:8787
        - --local-directory=/scratch
        - --death-timeout=60
      env:
        {{- include "pamola.env" . | nindent 8 }}
        {{- include "pamola.storeEnv" .root | nindent 8 }}
        {{- with $worker.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http-dashboard
          containerPort: 8787
          protocol: TCP
        - name: tls-worker
          containerPort: 8789
          protocol: TCP
        - name: tls-nanny
          containerPort: 8790
          protocol: TCP
      # No liveness probe: a worker that computes may not answer for long, and its nanny and the
      # scheduler know better whether it lives.
      readinessProbe:
        httpGet:
          port: http-dashboard
          path: /health
        periodSeconds: 10
        timeoutSeconds: 5
      lifecycle:
        preStop:
          exec:
            command:
              - python
              - -m
              - deploy.kubernetes.retire
              - {{ sub $worker.terminationGracePeriodSeconds 10 | quote }}
      resources: {{- toYaml $worker.resources | nindent 8 }}
      volumeMounts:
        {{- include "pamola.mounts" .root | nindent 8 }}
        {{- include "pamola.storeMounts" .root | nindent 8 }}
  volumes:
    {{- include "pamola.volumes" (dict "root" .root "scratch" $worker.scratchSize) | nindent 4 }}
    {{- include "pamola.storeVolumes" .root | nindent 4 }}
{{- end }}
