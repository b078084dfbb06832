package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
)

// maxErrLen bounds the text of an error, since parts of it come from the target.
const maxErrLen = 160

// finding is an error that is already in the words that operators read.
type finding struct{ error }

// obstacle is a finding that says something about this node, not the target.
type obstacle struct{ error }

// errTooSlow is the obstacle that what a probe waited for was there, and this process
// came to look only after the deadline: it is starved, and must not call others down.
var errTooSlow = obstacle{errors.New("this node was too slow to see in time what was there")}

// local are the errors that say something about this node, not the target.
var local = []struct {
	err  error
	says string
}{
	{syscall.EMFILE, "too many open files in this process"},
	{syscall.ENFILE, "too many open files on this machine"},
	{syscall.ENOBUFS, "no buffer space on this machine"},
	{syscall.ENOMEM, "no memory on this machine"},
	{syscall.EADDRNOTAVAIL, "no free local port, or the source address is not on this machine"},
	{syscall.EAFNOSUPPORT, "address family not available on this machine"},
	{syscall.EPERM, "not permitted on this machine (a local firewall?)"},
	{syscall.EACCES, "not permitted on this machine"},
}

// remote are the errors that a target, or the way to it, causes.
var remote = []struct {
	err  error
	says string
}{
	{syscall.EHOSTUNREACH, "no route to host"},
	{syscall.ENETUNREACH, "network unreachable"},
	{syscall.ECONNRESET, "connection reset"},
	{syscall.EPIPE, "connection reset"},
	{io.ErrUnexpectedEOF, "connection closed"},
	{io.EOF, "connection closed"},
}

// explain says in plain words what went wrong in a phase of a probe that had limit
// to do all.
func explain(err error, at phase, limit time.Duration) Result {
	var hindered obstacle
	if errors.As(err, &hindered) {
		return Result{Err: clip("cannot probe: " + hindered.Error()), Inconclusive: true}
	}
	for _, l := range local {
		if errors.Is(err, l.err) {
			return Result{Err: "cannot probe: " + l.says, Inconclusive: true}
		}
	}
	return Result{Err: clip(words(err, at, limit))}
}

// words is the text of explain.
func words(err error, at phase, limit time.Duration) string {
	var found finding
	var network net.Error
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &found):
		return found.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return fmt.Sprintf("timeout after %v %s", limit, at)
	case errors.Is(err, context.Canceled):
		return "cancelled " + string(at)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect refused"
	case errors.As(err, &certificate):
		return "certificate: " + certificateWords(certificate.Err)
	case errors.As(err, &notTLS):
		return "not TLS: the target speaks something else"
	}
	if alert := refusal(err); alert != nil {
		return "TLS refused by the target: " + alert.Error()
	}
	for _, r := range remote {
		if errors.Is(err, r.err) {
			return r.says + " " + string(at)
		}
	}
	if at == waiting {
		return "not HTTP: " + err.Error()
	}
	return err.Error() + " " + string(at)
}

// refusal returns the alert with which the target ended a TLS handshake, over TCP
// or QUIC, and nil if err is something else.
func refusal(err error) error {
	var tcp *net.OpError
	if errors.As(err, &tcp) && tcp.Op == "remote error" { // as crypto/tls has it
		return tcp.Err
	}
	var over *quic.TransportError
	if errors.As(err, &over) && over.Remote && over.ErrorCode.IsCryptoError() {
		return tls.AlertError(uint8(over.ErrorCode)) // the low byte
	}
	return nil
}

// certificateWords says what is wrong with a certificate.
func certificateWords(err error) string {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "signed by an unknown authority"
	case errors.As(err, &host):
		return "not valid for " + host.Host
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired or not yet valid"
	default:
		return strings.TrimPrefix(err.Error(), "x509: ")
	}
}

// clip keeps s to one line of bounded length.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxErrLen {
		s = strings.ToValidUTF8(s[:maxErrLen], "") + "…"
	}
	return s
}
