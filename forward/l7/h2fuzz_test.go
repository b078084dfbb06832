package l7

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/forward/l7/h2"
	"golang.org/x/net/http2/hpack"
)

// FuzzRequest2: whatever fields a stream has, what goes upstream is read by net/http as
// one request, with the method, the target and the fields that were asked for. A field a
// line of input, its name and value divided by a tab; the real line breaks are "␍␊".
func FuzzRequest2(f *testing.F) {
	const plain = ":method\tGET\n:scheme\thttp\n:path\t/a?b\n:authority\ta.test\n"
	for _, seed := range []string{
		plain, plain + "x\ty\ncookie\ta\ncookie\tb", plain + "content-length\t5", plain + "te\ttrailers\nhost\tA.test",
		plain + "x\ta␍␊transfer-encoding: chunked", strings.Replace(plain, "/a?b", "/ HTTP/1.1␍␊", 1),
		":method\tCONNECT\n:protocol\twebsocket\n:scheme\thttps\n:path\t/\n:authority\ta",
		plain + "expect\t100-continue\nx-forwarded-for\t1.2.3.4\ntrailer\tx",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.NewReplacer("␍", "\r", "␊", "\x0b").Replace(text)
		var fields []h2.Field
		for line := range strings.SplitSeq(text, "\n") {
			name, value, ok := strings.Cut(line, "\t")
			if !ok || name == "" {
				continue
			}
			fields = append(fields, h2.Field{Name: name, Value: strings.ReplaceAll(value, "\x0b", "\n")})
		}
		var r request
		extended, fault, ok := r.parse2(fields, nil)
		if !ok || fault.bad() || extended != nil {
			return
		}
		composed(t, &r, nil)
		out := sentUpstream(t, &r)
		decoded, err := hpack.NewDecoder(4096, nil).DecodeFull(appendRequest2(nil, &r, testEnds.to, true, false))
		if err != nil {
			t.Fatalf("%q: %v", fields, err)
		}
		checkFields2(t, decoded, 4)
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(out)))
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if std.Host != string(r.authority) {
			t.Fatalf("%q: the host is %q, want %q", out, std.Host, r.authority)
		}
		asked := map[string]bool{"X-Forwarded-For": true, "X-Forwarded-Proto": true, "X-Forwarded-Host": true, "X-Forwarded-Port": true, "Te": true, "Connection": true}
		for i := range fields {
			asked[http.CanonicalHeaderKey(fields[i].Name)] = true
		}
		for name := range std.Header {
			if !asked[name] {
				t.Fatalf("%q: nobody sent %s", out, name)
			}
		}
	})
}

// FuzzAnswer2: whatever fields a backend answers with over HTTP/2, a client of HTTP/1 reads one answer with that status and
// with fields that were sent, and a client of HTTP/2 gets what its own rules allow. Input as for FuzzRequest2.
func FuzzAnswer2(f *testing.F) {
	for _, seed := range []string{
		":status\t200\nx\ty", ":status\t200\ncontent-length\t5", ":status\t204", ":status\t103\nlink\t</x>", ":status\t200\n:status\t200",
		":status\t200\ntransfer-encoding\tchunked", ":status\t200\nx\ta␍␊b: c", ":status\t200\nconnection\tclose", ":status\t200\ntrailer\tx\ncontent-length\t0",
		"x\ty\n:status\t200", ":status\t999", ":status\t200\nset-cookie\ta\nset-cookie\tb", ":status\t200\nx y\tz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.NewReplacer("␍", "\r", "␊", "\x0b").Replace(text)
		var fields []h2.Field
		sent := map[string]bool{"Connection": true, "Transfer-Encoding": true, "Content-Length": true}
		for line := range strings.SplitSeq(text, "\n") {
			name, value, ok := strings.Cut(line, "\t")
			if !ok || name == "" {
				continue
			}
			fields = append(fields, h2.Field{Name: name, Value: strings.ReplaceAll(value, "\x0b", "\n")})
			sent[http.CanonicalHeaderKey(name)] = true
		}
		var r response
		if _, err := r.parse2(fields, nil); err != nil || r.status < 200 {
			return
		}
		out := appendResponse(nil, &r, 1, false, r.length, false)
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), &http.Request{Method: "HEAD"})
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if std.StatusCode != r.status || r.length >= 0 && std.ContentLength != r.length {
			t.Fatalf("%q: read as %d of %d bytes, want %d of %d", out, std.StatusCode, std.ContentLength, r.status, r.length)
		}
		for name := range std.Header {
			if !sent[name] {
				t.Fatalf("%q: nobody sent %s", out, name)
			}
		}
		decoded, err := hpack.NewDecoder(4096, nil).DecodeFull(appendHead2(nil, &r, r.length))
		if err != nil {
			t.Fatalf("%q: %v", fields, err)
		}
		checkFields2(t, decoded, 1)
	})
}

// checkFields2 checks what we send over HTTP/2 by the rules that we hold others to.
func checkFields2(t *testing.T, fields []hpack.HeaderField, pseudo int) {
	t.Helper()
	for i, f := range fields {
		switch {
		case i < pseudo:
			if f.Name[0] != ':' {
				t.Fatalf("%q: a pseudo field is missing", fields)
			}
		case !isToken([]byte(f.Name)) || f.Name != strings.ToLower(f.Name) || !isValue([]byte(f.Value)) || len(trim([]byte(f.Value))) != len(f.Value):
			t.Fatalf("%q may not be sent", f)
		case f.Name == "connection", f.Name == "transfer-encoding", f.Name == "upgrade", f.Name == "keep-alive", f.Name == "host",
			f.Name == "te" && f.Value != "trailers", strings.HasPrefix(f.Name, "proxy-"):
			t.Fatalf("%q has no place in HTTP/2", f)
		}
	}
}
