{{/* The version that a manifest is labelled with, in a label's letters. */}}
{{- define "qbitel.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: qbitel-mesh
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{/* NAME:TAG, or NAME@DIGEST. */}}
{{- define "qbitel.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* MAJOR.MINOR; providers write a minor version such as 27+. */}}
{{- define "qbitel.kubernetesVersion" -}}
{{- .Values.kubernetesVersion | default (printf "%s.%s" .Capabilities.KubeVersion.Major (trimSuffix "+" .Capabilities.KubeVersion.Minor)) -}}
{{- end }}

{{/* Where pods of the mesh find the authority. */}}
{{- define "qbitel.authority" -}}
{{- if .Values.clusterDNS -}}
qbitel-certmgr.{{ .Release.Namespace }}.svc:15012
{{- else if contains ":" .Values.certmgr.service.clusterIP -}}
[{{ .Values.certmgr.service.clusterIP }}]:15012
{{- else -}}
{{ required "clusterDNS is false: give certmgr.service.clusterIP, an address of the cluster's Services that is free" .Values.certmgr.service.clusterIP }}:15012
{{- end -}}
{{- end }}

{{/* What is the same for each pod of the control plane. */}}
{{- define "qbitel.pod" -}}
{{- $scheduling := .root.Values.scheduling -}}
serviceAccountName: {{ .name }}
terminationGracePeriodSeconds: 30
{{- with $scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $scheduling.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $scheduling.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $scheduling.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
# Apart where that is possible, and rather together than not at all.
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {app.kubernetes.io/name: {{ $.name }}}}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 2102
  runAsGroup: 2102
  fsGroup: 2102
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The image of the control plane, and what its containers may not. */}}
{{- define "qbitel.container" -}}
image: {{ include "qbitel.image" (dict "image" .Values.images.control "root" .) | quote }}
{{- with .Values.images.control.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Ports and probes of a program that serves /healthz and /metrics on the mesh's usual ports. */}}
{{- define "qbitel.probes" -}}
readinessProbe:
  httpGet: {path: /healthz/ready, port: health}
livenessProbe:
  httpGet: {path: /healthz/live, port: health}
  initialDelaySeconds: 10
  timeoutSeconds: 5  # a node that is short of CPU is no reason to start again
{{- end }}

{{/* Gives `account` the rights of `role`, a Role or, with `cluster`, a ClusterRole. */}}
{{- define "qbitel.binding" -}}
{{- $kind := .cluster | ternary "ClusterRole" "Role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ .role }}
  {{- if not .cluster }}
  namespace: {{ .root.Release.Namespace }}
  {{- end }}
  labels: {{- include "qbitel.labels" (dict "name" .account "root" .root) | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ $kind }}, name: {{ .role }}}
subjects:
  - {kind: ServiceAccount, name: {{ .account }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
