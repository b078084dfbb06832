// Package admin is a node's window: the HTTP API that the command line, the
// metrics collector and load balancers' health checks use.
//
// It listens on a unix socket, where file permissions decide who may ask, and
// optionally on TCP, where everything but /livez and /readyz needs the bearer
// token. It never decides and keeps no state: every answer comes
// from the functions in Options. node builds it; cmd/pharos talks to it
// through Client.
//
//	GET  /livez           the process runs
//	GET  /readyz          200 when the node serves, 503 with the reason otherwise
//	GET  /metrics         Prometheus
//	GET  /v1/status       Status
//	GET  /v1/explain      steer.Explanation; name, type, from, down (repeatable)
//	POST /v1/reload       ReloadResult; allow_remove=true permits large removals
package admin
