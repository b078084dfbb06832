package l7

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/forward/l7/h2"
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
