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
//	POST /v1/explain/http HTTPExplanation of an HTTPQuestion
//	POST /v1/reload       ReloadResult; allow_remove=true and allow_withdraw=true permit large removals
//	GET  /v1/overrides    OverrideList; all=true shows cleared ones too
//	GET  /v1/drains       DrainList: how far what is drained has come, at every node
//	POST /v1/overrides    OverrideResult; scopes, order, for, by, reason, local, force, dry_run
//	GET  /v1/check        CheckResult; target, local
//	GET  /v1/keys         KeyStatus
//	POST /v1/keys         KeyStatus; one of add, use, remove; force
package admin
