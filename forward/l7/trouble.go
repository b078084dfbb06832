package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/pharos-lb/pharos/forward"
)

// A trouble is why an exchange did not go to its end.
type trouble uint8

const (
	troubleNone     trouble = iota
	troubleClient           // the client broke off or takes nothing
	troubleReset            // the backend broke off
	troubleSilent           // the backend said nothing in time
	troubleProtocol         // the backend's answer is not HTTP
	troubleBody             // the client's body is malformed
	troubleSlow             // the client's body did not come in time
	troubleRefused          // the backend did nothing about the request
	troubleNoTunnel         // the backend does not take WebSockets
	troubleLarge            // the client's body is larger than it may be
	troubleRate             // it comes too slowly
	troubleLate             // the request took longer than it may
	troublePlain            // the backend answered a WebSocket's handshake as if it were none
)

// fault is what the client is told, if it can still be told.
func (t trouble) fault(service string) fault {
	switch t {
	case troubleReset:
		return fault{status: 502, text: fmt.Sprintf("backend of service %q closed the connection", service)}
	case troubleSilent:
		return fault{status: 504, text: fmt.Sprintf("backend of service %q did not answer in time", service)}
	case troubleProtocol:
		return fault{status: 502, text: fmt.Sprintf("backend of service %q sent an invalid response", service)}
	case troubleBody:
		return malformed("malformed chunked body")
	case troubleSlow:
		return fault{status: 408, text: "request body did not arrive in time", shed: shedBodyTime}
	case troubleLarge:
		return fault{status: 413, text: "request body is too large", shed: shedBody}
	case troubleRate:
		return fault{status: 408, text: "request body came too slowly", shed: shedBodyRate}
	case troubleLate:
		return fault{status: 504, text: fmt.Sprintf("request to service %q took too long", service), shed: shedRequestTime}
	case troubleRefused:
		return fault{status: 503, text: fmt.Sprintf("backend of service %q took no more requests", service)}
	case troublePlain:
		return fault{status: 502, text: fmt.Sprintf("backend of service %q did not accept the WebSocket", service)}
	case troubleNoTunnel:
		return fault{status: 501, text: fmt.Sprintf("backend of service %q takes no WebSockets over HTTP/2", service)}
	default:
		return fault{}
	}
}

// outcome is what the exchange says about the backend.
func (t trouble) outcome(status int) forward.Outcome {
	switch {
	case t == troubleReset:
		return forward.OutcomeReset
	case t == troubleSilent, t == troubleLate:
		return forward.OutcomeTimeout
	case t == troubleProtocol:
		return forward.OutcomeProtocol
	case t != troubleNone:
		return forward.OutcomeClient
	case status >= 500:
		return forward.OutcomeError
	default:
		return forward.OutcomeServed
	}
}

// backendTrouble classifies an error of the upstream connection.
func backendTrouble(err error) trouble {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return troubleSilent
	}
	return troubleReset
}

// unavailable is the fault for a service that no connection could be had for in the request's time.
func (w *work) unavailable(service string, err error) fault {
	if w.isLate() {
		return troubleLate.fault(service)
	}
	return unavailable(service, err)
}

// unavailable is the fault for a service that no connection could be had for.
func unavailable(service string, err error) fault {
	var failure net.Error // a dial reports its time limit as one of several errors
	var unproven *tls.CertificateVerificationError
	switch {
	case errors.Is(err, forward.ErrNoPlan):
		return fault{status: 503, text: fmt.Sprintf("nothing decided yet for service %q", service)}
	case errors.Is(err, forward.ErrNoPool):
		return fault{status: 503, text: fmt.Sprintf("no backends for service %q at this site", service)}
	case errors.Is(err, forward.ErrNoBackend):
		return fault{status: 503, text: fmt.Sprintf("no healthy backend for service %q", service)}
	case forward.Limited(err):
		return fault{status: 503, text: fmt.Sprintf("every backend of service %q is at its limit", service), retry: 1}
	case errors.Is(err, context.Canceled):
		return fault{status: 503, text: "shutting down"}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &failure) && failure.Timeout():
		return fault{
			status: 504, text: fmt.Sprintf("no backend of service %q could be connected to in time", service),
			grpc: grpcUnavailable, // nobody has begun anything
		}
	case errors.As(err, &unproven):
		return fault{status: 502, text: fmt.Sprintf("no backend of service %q could be verified", service)}
	default:
		return fault{status: 502, text: fmt.Sprintf("no backend of service %q could be connected to", service)}
	}
}
