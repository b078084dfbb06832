package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestAnswersOnlyAfterTheFirstVerdict(t *testing.T) {
	hold := make(chan struct{})
	newBackend(t, "127.9.2.11:9000", "one", hold)
	newBackend(t, "127.9.2.12:9000", "two", hold)
	// The check may hang for longer than this part of the test takes.
	config := strings.NewReplacer("WAIT", "1m", "timeout: 200ms", "timeout: 20s", "every: 200ms", "every: 30s").Replace(oneSite)
	r := startNode(t, config)
	if got := r.state(t); got != "starting" {
		t.Fatalf("state %q before any verdict, want starting", got)
	}
	for _, addr := range []string{"127.9.2.1:5353", "127.9.2.80:8080"} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s is open before the first verdict", addr)
		}
	}
	close(hold)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if !answers("www.t.test", "127.9.2.80") {
		t.Error("no answer although serving")
	}
}

func TestOpensWithinABoundedTime(t *testing.T) {
	newBackend(t, "127.9.2.11:9000", "one", make(chan struct{}))
	newBackend(t, "127.9.2.12:9000", "two", make(chan struct{}))
	config := strings.NewReplacer("WAIT", "500ms", "timeout: 200ms", "timeout: 1m", "every: 200ms", "every: 1m").Replace(oneSite)
	r := startNode(t, config)
	eventually(t, "serving although no check ever ends", func() bool { return r.state(t) == "serving" })
	if !answers("www.t.test", "127.9.2.80") {
		t.Error("unknown health must be answered, not hidden")
	}
}

func TestUnhealthyBackendIsSkipped(t *testing.T) {
	one := newBackend(t, "127.9.2.11:9000", "one", released())
	two := newBackend(t, "127.9.2.12:9000", "two", released())
	r := startNode(t, strings.ReplaceAll(oneSite, "WAIT", "5s"))
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	onlyFrom := func(want string) func() bool {
		return func() bool {
			for range 10 {
				for _, addr := range []string{"127.9.2.80:8080", "127.9.2.80:8081"} {
					if _, body := get(addr); body != want {
						return false
					}
				}
			}
			return true
		}
	}
	one.healthy.Store(false)
	eventually(t, "all traffic goes to two", onlyFrom("two"))
	one.healthy.Store(true)
	two.healthy.Store(false)
	eventually(t, "all traffic goes to one", onlyFrom("one"))
}

func TestReload(t *testing.T) {
	newBackend(t, "127.9.2.11:9000", "one", released())
	newBackend(t, "127.9.2.12:9000", "two", released())
	base := strings.ReplaceAll(oneSite, "WAIT", "5s")
	r := startNode(t, base)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })

	// An L4 connection that is open over every reload that follows.
	conn, err := net.Dial("tcp", "127.9.2.80:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	alive := func(when string) {
		t.Helper()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("%s: the old connection broke: %v", when, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	alive("before")

	reload := func(config string, allow bool) error {
		_, err := r.reload(t, config, allow)
		return err
	}
	withNew := strings.Replace(base, "names: {www:", "names: {new: {service: extra}, www:", 1)
	if err := reload(withNew, false); err != nil {
		t.Fatal(err)
	}
	if !answers("new.t.test", "127.9.2.81") || !answers("www.t.test", "127.9.2.80") {
		t.Error("the new configuration is not answered")
	}
	alive("after a good reload")

	refused := []struct{ name, config, want string }{
		{"syntax", "sites: [", "pharos.yaml:"},
		{"unknown key", strings.Replace(base, "location", "locaton", 1), "did you mean"},
		{"bad zone", strings.Replace(base, "IN SOA", "IN SAO", 1), "SAO"},
		{"large removal", strings.NewReplacer("WAIT", "5s").Replace(base[:strings.Index(base, "  extra:")] + base[strings.Index(base, "zones:"):]), "--allow-remove"},
		{"gossip port", strings.Replace(base, "name: one", "name: one, port: 7999", 1), "needs a restart"},
		{"node gone", strings.Replace(base, "a1:", "a2:", 1), `no node named "a1"`},
		{"address not ours", strings.Replace(withNew, `vip: {a: 127.9.2.81}`, `vip: {a: 198.51.100.99}`, 1) + `  - {bind: "vip:9090", tcp: {service: extra}}` + "\n", "198.51.100.99:9090"},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			err := reload(tt.config, false)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if !answers("new.t.test", "127.9.2.81") {
				t.Error("the old configuration is no longer in force")
			}
			st, err := r.client.Status(t.Context())
			if err != nil || st.Config.LastError == "" {
				t.Errorf("status does not tell of the refused reload: %v", err)
			}
			alive("after a refused reload")
		})
	}
	if err := reload(refused[3].config, true); err != nil {
		t.Errorf("a large removal that is meant: %v", err)
	}
	var missing *net.DNSError
	if _, err := lookup("new.t.test"); !errors.As(err, &missing) || !missing.IsNotFound {
		t.Errorf("a removed name: got %v, want NXDOMAIN", err)
	}
	alive("after the removal")
}

func TestStopLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	hold := released()
	r := startNode(t, strings.ReplaceAll(oneSite, "WAIT", "300ms"))
	_ = hold
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
	for _, addr := range []string{"127.9.2.1:5353", "127.9.2.80:8080", "127.9.2.80:8081", "127.9.2.1:7946"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("%s is still in use: %v", addr, err)
			continue
		}
		l.Close()
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.9.2.80:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := startNode(t, strings.ReplaceAll(oneSite, "WAIT", "300ms"))
	err = waitStopped(t, r)
	if err == nil || !strings.Contains(err.Error(), "127.9.2.80:8080") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want an error that names the address in use", err)
	}
}
