package l4

import "github.com/pharos-lb/pharos/forward"

// A drop is why a connection was refused or ended before both of its ends had
// said so. Metrics label by it.
type drop uint8

const (
	dropNone          drop = iota
	dropTooMany            // MaxConns
	dropListenerFull       // Limits.Connections
	dropDescriptors        // all that are not kept for the rest of the node are in use
	dropServiceFull        // Limits.ServiceConnections
	dropServiceRate        // the rate of its service (forward.Limit)
	dropRate               // Limits.Rate
	dropNodeRate           // the rate of all listeners together
	dropClientFull         // Limits.ClientConnections
	dropClientRate         // Limits.ClientRate
	dropLocal              // this machine lacked something
	dropProxyTimeout       // no whole PROXY header in time
	dropProxyInvalid       // what came is no PROXY header
	dropProxyCut           // the PROXY header broke off
	dropProxySpoofed       // a PROXY header from somebody who is not trusted with it
	dropHelloTimeout       // no whole TLS hello in time
	dropHelloInvalid       // what came is no TLS hello, and nobody takes anything else
	dropHelloCut           // the TLS hello broke off
	dropNoRoute            // nobody takes this name or protocol
	dropClientGone         // the client has left before a backend was there
	dropQueue              // no backend had room in time, or too many wait for one
	dropNoBackend          // no backend to give
	dropConnectFailed      // no backend could be connected to
	dropIdle               // both directions silent for too long
	dropLifetime           // open for too long
	dropBackendGone        // its backend is out of use
	dropClientLost         // the client does not answer any more: keep-alive, user timeout, no route
	dropBackendLost        // the same of its backend
	dropCut                // still open at the end of the drain
	dropCount
)

var dropTexts = [dropCount]string{
	"", "max_connections", "listener_connections", "descriptors", "service_connections", "service_rate", "rate", "node_rate", "client_connections", "client_rate",
	"local", "proxy_timeout", "proxy_invalid", "proxy_cut", "proxy_spoofed", "hello_timeout", "hello_invalid",
	"hello_cut", "no_route", "client_gone", "queue", "no_backend", "connect_failed", "idle", "lifetime", "backend_gone",
	"client_lost", "backend_lost", "drain",
}

// String returns the reason as metrics label it.
func (d drop) String() string { return dropTexts[d] }

// outcome is what a flow that is ended for this reason says about its backend.
func (d drop) outcome() forward.Outcome {
	switch d {
	case dropIdle:
		return forward.OutcomeTimeout
	case dropLifetime:
		return forward.OutcomeServed
	}
	return forward.OutcomeClient
}
