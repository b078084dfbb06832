package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// GRPCHealth is what a GRPC check asks of grpc.health.v1.Health/Check.
type GRPCHealth struct {
	Service string // "" = the server as a whole
	TLS     bool   // else in clear text
}

// maxHealthBytes is the largest answer that a GRPC check takes; a true one has
// two bytes.
const maxHealthBytes = 4 << 10

// validateGRPC returns what is wrong with a GRPC check.
func (c Check) validateGRPC() []error {
	errs := append(c.validateNames(), tooLong(c.GRPC.Service)...)
	if !utf8.ValidString(c.GRPC.Service) {
		errs = append(errs, fmt.Errorf("grpc service %.40q: not UTF-8", c.GRPC.Service))
	}
	return errs
}

// probeGRPC runs a GRPC check once. One call with messages of a field each does
// not need a library that keeps, balances and retries connections; a benchmark
// compares them.
func (p *prober) probeGRPC(ctx context.Context, c *Check) Result {
	conn, end, at, err := p.open(ctx, c, "h2")
	if err != nil {
		return explain(err, at, c.Timeout)
	}
	defer end()
	got, at, err := roundTrip2(ctx, conn, grpcRequest(ctx, c))
	if err != nil {
		return explain(err, at, c.Timeout)
	}
	var r Result
	if err := judgeGRPC(got, c.GRPC.Service); err != nil {
		r = explain(err, answering, c.Timeout)
	}
	r.Code = got.StatusCode
	return r
}

// grpcRequest is the call of Health/Check.
func grpcRequest(ctx context.Context, c *Check) *http.Request {
	var message []byte
	if c.GRPC.Service != "" {
		message = protowire.AppendTag(message, 1, protowire.BytesType)
		message = protowire.AppendString(message, c.GRPC.Service)
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) // 0: not compressed
	framed = append(framed, message...)
	scheme := "http"
	if c.secure() {
		scheme = "https"
	}
	r := &http.Request{
		Method: "POST",
		URL:    &url.URL{Scheme: scheme, Host: c.Target.Addr.String(), Path: "/grpc.health.v1.Health/Check"},
		Host:   c.Host, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: http.Header{
			"User-Agent": {userAgent}, "Content-Type": {"application/grpc"}, "Te": {"trailers"},
		},
		Body: io.NopCloser(bytes.NewReader(framed)), ContentLength: int64(len(framed)),
	}
	return r.WithContext(ctx)
}

// judgeGRPC returns what is wrong with the answer to a GRPC check of service.
func judgeGRPC(got *http.Response, service string) error {
	if got.StatusCode != http.StatusOK {
		return finding{fmt.Errorf("HTTP status %d, want 200", got.StatusCode)}
	}
	if kind := got.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/grpc") {
		return finding{fmt.Errorf("not gRPC: content type %.60q", kind)}
	}
	framed, err := io.ReadAll(io.LimitReader(got.Body, maxHealthBytes+1))
	if err != nil {
		return err
	}
	if len(framed) > maxHealthBytes {
		return finding{fmt.Errorf("gRPC answer larger than %d KiB", maxHealthBytes>>10)}
	}
	status, from := got.Trailer.Get("Grpc-Status"), got.Trailer
	if status == "" { // an answer without a message has its trailers in front
		status, from = got.Header.Get("Grpc-Status"), got.Header
	}
	if err := judgeStatus(status, from.Get("Grpc-Message"), service); err != nil {
		return err
	}
	return judgeServing(framed)
}

// judgeStatus returns what is wrong with the status of a call.
func judgeStatus(status, message, service string) error {
	code, err := strconv.ParseUint(status, 10, 16)
	switch {
	case err != nil:
		return finding{fmt.Errorf("not gRPC: status %.20q", status)}
	case code == 0:
		return nil
	case code == 5:
		return finding{fmt.Errorf("the server does not know service %.60q", service)}
	case code == 12:
		return finding{errors.New("the server does not offer grpc.health.v1.Health")}
	}
	if text, err := url.PathUnescape(message); err == nil {
		message = text
	}
	name := strconv.FormatUint(code, 10)
	if int(code) < len(grpcCodes) {
		name = grpcCodes[code]
	}
	return finding{errors.New(strings.TrimSuffix(fmt.Sprintf("gRPC status %s: %.80s", name, message), ": "))}
}

// grpcCodes are the names of the status codes of gRPC.
var grpcCodes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// servingStates are the names of the states in an answer of Health/Check.
var servingStates = [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

// judgeServing returns a finding unless the message says SERVING.
func judgeServing(framed []byte) error {
	if len(framed) < 5 || framed[0] != 0 || uint64(binary.BigEndian.Uint32(framed[1:])) != uint64(len(framed)-5) {
		return finding{errors.New("not gRPC: no message of the length it says, uncompressed")}
	}
	var state uint64
	for rest := framed[5:]; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n > 0 {
			rest = rest[n:]
			if number == 1 && kind == protowire.VarintType {
				state, n = protowire.ConsumeVarint(rest)
			} else {
				n = protowire.ConsumeFieldValue(number, kind, rest)
			}
		}
		if n < 0 {
			return finding{fmt.Errorf("not an answer of grpc.health.v1: %w", protowire.ParseError(n))}
		}
		rest = rest[n:]
	}
	switch {
	case state == 1:
		return nil
	case state < uint64(len(servingStates)):
		return finding{errors.New("serving state " + servingStates[state] + ", want SERVING")}
	}
	return finding{fmt.Errorf("serving state %d, want SERVING", state)}
}
