package l7

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	clientspec "github.com/summerwind/h2spec/client"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	http2spec "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// quiet has h2spec, which tells of each case on standard output, be silent until the test ends.
func quiet(t *testing.T) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := os.Stdout
	os.Stdout = null
	t.Cleanup(func() { os.Stdout = out; null.Close() })
}

// TestH2spec: h2spec finds nothing to say about us as a server, with TLS and without.
func TestH2spec(t *testing.T) {
	quiet(t)
	ca := certtest.New(t)
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute}, {Routes: anyRoute, TLS: secure(ca, "a.test")}}},
		webBackend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1000)) }))
	for i, addr := range f.Addrs() {
		t.Run([]string{"h2c", "h2"}[i], func(t *testing.T) {
			c := &config.Config{
				Host: "127.0.0.1", Port: int(addr.Port()), Path: "/", Timeout: 5 * time.Second, MaxHeaderLen: 4000, Strict: true,
				TLS: i == 1, Insecure: true,
			}
			passed := 0
			for _, group := range []*spec.TestGroup{generic.Spec(), http2spec.Spec(), hpack.Spec()} {
				group.Test(c)
				passed += group.PassedCount
				failures(t, group)
			}
			if passed < 140 {
				t.Errorf("%d cases passed", passed)
			}
		})
	}
}

func failures(t *testing.T, group *spec.TestGroup) {
	t.Helper()
	for _, g := range group.Groups {
		failures(t, g)
	}
	for _, c := range group.Tests {
		if t.Name() == "TestH2spec/h2c" && c.Desc == "Sends invalid connection preface" {
			continue // without TLS what is no preface is HTTP/1, and answered in that (400)
		}
		if c.Result != nil && c.Result.Failed {
			t.Errorf("%s %s: %s: %v", group.Section, group.Name, c.Desc, c.Result.Error)
		}
	}
}

// TestH2specClient: the same about us as a client, to backends each of which breaks one rule.
func TestH2specClient(t *testing.T) {
	quiet(t)
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{ResponseTimeout: 3 * time.Second})
	c := &config.Config{Host: "127.0.0.1", Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true}
	cases := make(map[int]*spec.ClientTestCase)
	clientspec.Spec().ClientTestCases(cases, c, 1)
	if len(cases) < 40 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, tc := range cases {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f.pools.publish(l.Addr().(*net.TCPAddr).AddrPort())
		asked := make(chan struct{})
		hc := client(t)
		go func() { // its answer is no matter
			defer close(asked)
			if res, err := hc.Get("http://" + f.addr + "/"); err == nil {
				res.Body.Close()
			}
		}()
		wire, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := spec.Accept(c, wire)
		if err == nil {
			err = tc.Run(c, conn)
		}
		wire.Close()
		l.Close()
		<-asked
		if err != nil && !errors.Is(err, spec.ErrSkipped) {
			t.Errorf("%s %s: %s: %v", tc.Parent.Section, tc.Parent.Name, tc.Desc, err)
		}
	}
}
