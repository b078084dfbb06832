package l7

import (
	"bytes"
	"strconv"

	"github.com/pharos-lb/pharos/forward/l7/h2"
)

// A grpcCode is a status code of gRPC; 0, which is OK there, stands for what the HTTP status says.
type grpcCode uint8

const (
	grpcUnknown           grpcCode = 2
	grpcDeadlineExceeded  grpcCode = 4
	grpcPermissionDenied  grpcCode = 7
	grpcResourceExhausted grpcCode = 8
	grpcUnimplemented     grpcCode = 12
	grpcInternal          grpcCode = 13
	grpcUnavailable       grpcCode = 14
	grpcUnauthenticated   grpcCode = 16
)

// grpcCodeOf is what an error of ours is for a client of gRPC. It is the table that such clients have for proxies which
// know no gRPC, made more exact where we know more: a limit is not an outage, and what took too long was not refused.
func grpcCodeOf(f fault) grpcCode {
	if f.grpc != 0 {
		return f.grpc
	}
	switch f.status {
	case 400, 417:
		return grpcInternal
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404, 405, 501:
		return grpcUnimplemented
	case 413, 414, 429, 431:
		return grpcResourceExhausted
	case 408, 504:
		return grpcDeadlineExceeded
	case 425, 502, 503:
		return grpcUnavailable
	default:
		return grpcUnknown
	}
}

// isGRPC reports whether a media type is that of gRPC over HTTP/2: application/grpc, with a format or not. That
// of gRPC-Web is another protocol.
func isGRPC(media []byte) bool {
	const base = "application/grpc"
	if len(media) < len(base) || !is(media[:len(base)], base) {
		return false
	}
	rest := media[len(base):]
	return len(rest) == 0 || rest[0] == '+' || rest[0] == ';' || rest[0] == ' '
}

// speaksGRPC reports whether the client waits for a status of gRPC, which has no form in HTTP/1.
func (w *work) speaksGRPC() bool {
	return w.req.version >= 2 && isGRPC(w.told("content-type"))
}

// contentTypeOf keeps of a head that was too large to be parsed what says in which form an error is to be told.
func (w *work) contentTypeOf(fields []h2.Field) {
	w.req.fields, w.req.version = w.req.fields[:0], 2
	for i := range fields {
		if fields[i].Name == "content-type" {
			w.req.fields = append(w.req.fields, field{name: []byte("content-type"), value: []byte(fields[i].Value)})
		}
	}
}

var (
	nameGRPCStatus   = []byte("grpc-status")
	nameGRPCMessage  = []byte("grpc-message")
	nameGRPCPushback = []byte("grpc-retry-pushback-ms")
)

// fillGRPC makes an error of ours the answer without messages (trailers only) that a client of gRPC understands.
func (w *work) fillGRPC(n *notice, f fault) {
	n.status, n.means, n.bare = 200, f.status, true
	n.contentType = "application/grpc"
	n.add(nameGRPCStatus, w.number(int(grpcCodeOf(f))))
	n.add(nameGRPCMessage, percentEncoded(f.text))
	if f.retry > 0 {
		n.add(nameGRPCPushback, strconv.AppendInt(nil, int64(f.retry)*1000, 10))
	}
}

// answersGRPC reports whether w.res is an answer of gRPC whose status comes in its trailers.
func (w *work) answersGRPC() bool {
	r := &w.res
	if r.status != 200 || r.length >= 0 || !w.speaksGRPC() {
		return false
	}
	for i := range r.fields {
		if f := &r.fields[i]; is(f.name, "content-type") {
			return isGRPC(f.value)
		}
	}
	return false
}

// endGRPC ends an answer that has begun and broken off as what it would have ended with if the backend could
// have: by a status in trailers. It reports false if there is no place for it.
func (w *work) endGRPC(f fault) bool {
	if !w.grpcEnds {
		return false
	}
	lines := appendField(nil, nameGRPCStatus, w.number(int(grpcCodeOf(f))))
	w.down.end(w, appendField(lines, nameGRPCMessage, percentEncoded(f.text)))
	return w.down.flush(w) == troubleNone
}

// percentEncoded is a text as grpc-message has it: printable ASCII but for the percent sign, everything else escaped.
func percentEncoded(text string) []byte {
	var out bytes.Buffer
	for i := range len(text) {
		if c := text[i]; c >= ' ' && c <= '~' && c != '%' {
			out.WriteByte(c)
		} else {
			const digits = "0123456789ABCDEF"
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return out.Bytes()
}
