package bgp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/router"
)

// runTestParent is the main of a test process that runs a Speaker until it is killed.
func runTestParent(encoded string) error {
	var o order
	if err := json.Unmarshal([]byte(encoded), &o); err != nil {
		return err
	}
	if err := os.Unsetenv(parentVerb); err != nil {
		return err
	}
	s, err := New(childOptions(Options{
		Config: o.Config, Peers: o.Peers, Desired: func() []Route { return o.Routes },
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}))
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}

func TestParentKilled(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	took := killParent(t, l, r, syscall.SIGKILL, time.Second)
	t.Logf("withdrawn %s after kill -9 of the parent", took)
}

func TestParentStopped(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	killParent(t, l, r, syscall.SIGSTOP, shortLease+time.Second)
}

// killParent runs a parent process, waits for its route, signals it, and returns how long the route stayed, which must
// be at most limit.
func killParent(t *testing.T, l *lab, r *remoteRouter, sig syscall.Signal, limit time.Duration) time.Duration {
	t.Helper()
	state, err := json.Marshal(order{Config: l.shortLease(), Peers: []Peer{l.peer(2)}, Routes: []Route{{Prefix: anycast}}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentVerb+"="+string(state))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	awaitRouter(t, r, "the route", has(anycast))
	meter := measureStalls()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	took := awaitRouter(t, r, "the withdrawal", none)
	meter.atMost(t, took, limit)
	return took
}

// TestPipeCloses drives the child alone: the end of its input is the parent's death.
func TestPipeCloses(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	config, peers, err := normalize(l.config(), []Peer{l.peer(2)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := startProcess([]string{"/proc/self/exe"}, append(os.Environ(), childVerb+"=1"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, p.reports) }()
	go func() { _, _ = io.Copy(io.Discard, p.errs) }()
	defer p.closeReaders()
	routes, _ := resolve(config, []Route{{Prefix: anycast}})
	config.Lease = time.Minute
	if err := p.send(order{Kind: orderState, Generation: 1, Config: config, Peers: peers, Routes: routes}, patience); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, r, "the route", has(anycast))
	meter := measureStalls()
	_ = p.orders.Close()
	meter.atMost(t, awaitRouter(t, r, "the withdrawal", none), time.Second)
	if err := p.end(patience); err != nil {
		t.Errorf("the child ended with %v, want a clean end", err)
	}
	awaitSession(t, r, "a goodbye", func(s router.Session) bool { return strings.Contains(s.LastError, "cease") })
}

// TestLapsedChildNeedsState: after the lease ran out a bare renewal does not announce again.
func TestLapsedChildNeedsState(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	config, peers, err := normalize(l.config(), []Peer{l.peer(2)})
	if err != nil {
		t.Fatal(err)
	}
	config.Lease = 5 * time.Second
	p, err := startProcess([]string{"/proc/self/exe"}, append(os.Environ(), childVerb+"=1"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.closeReaders()
	defer func() { _ = p.end(patience) }()
	go func() { _, _ = io.Copy(io.Discard, p.errs) }()
	reports := make(chan report, 1000)
	go func() {
		defer close(reports)
		for {
			var rep report
			if readMessage(p.reports, &rep) != nil {
				return
			}
			reports <- rep
		}
	}()
	routes, _ := resolve(config, []Route{{Prefix: anycast}})
	o := order{Kind: orderState, Generation: 1, Config: config, Peers: peers, Routes: routes}
	if err := p.send(o, patience); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, r, "the route", has(anycast))
	awaitRouter(t, r, "the withdrawal by lease", none)
	if err := p.send(order{Kind: orderRenew, Generation: 1}, patience); err != nil {
		t.Fatal(err)
	}
	if err := p.send(order{Kind: orderRenew, Generation: 1}, patience); err != nil {
		t.Fatal(err)
	}
	// Reports say "lapsed" from the first time on, also after the renewals.
	for seen := 0; seen < 4; {
		rep, ok := <-reports
		if !ok {
			t.Fatal("the child ended")
		}
		switch {
		case rep.Lapsed:
			seen++
		case seen > 0:
			t.Fatalf("a bare renewal revived the child: %s", show(rep))
		}
	}
	if !none(r.Routes()) {
		t.Error("a bare renewal announced again")
	}
	o.Generation = 2
	if err := p.send(o, patience); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, r, "the route after a new state", has(anycast))
}

// TestGarbageToChild: whatever comes through the pipe, the child ends or goes on; it does not announce.
func TestGarbageToChild(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		input []byte
		want  string // in its log
	}{
		{"nothing", nil, ""},
		{"half a length", []byte{0, 0}, "unexpected EOF"},
		{"too long", []byte{255, 255, 255, 255, 'x'}, "too long"},
		{"not JSON", []byte{0, 0, 0, 1, '!'}, "decode message"},
		{"unknown order", []byte("\x00\x00\x00\x0e" + `{"Kind":"jump"}`[:14]), "decode message"},
		{"unknown kind", []byte("\x00\x00\x00\x0f" + `{"Kind":"jump"}`), "unknown order"},
		{"renewal before a state", []byte("\x00\x00\x00\x10" + `{"Kind":"renew"}`), ""},
		{"state without a configuration", []byte("\x00\x00\x00\x10" + `{"Kind":"state"}`), "listen on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), childVerb+"=1")
			cmd.Stdin, cmd.Stderr = bytes.NewReader(tc.input), &log
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			done := make(chan struct{})
			go func() { defer close(done); _ = cmd.Run() }()
			select {
			case <-done:
			case <-ctx.Done():
				t.Fatal("the child does not end")
			}
			if strings.Contains(log.String(), "panic:") || !strings.Contains(log.String(), tc.want) {
				t.Errorf("log is %s, want %q in it", fmt.Sprintf("%.2000s", log.String()), tc.want)
			}
		})
	}
}

// TestChildLogKeepsNumbers: a 4-byte AS number in the child's log is logged as it is.
func TestChildLogKeepsNumbers(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	line := `{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"BGP session established","peer":"192.0.2.1","asn":4200000001}`
	if !new(process).passOn(log, []byte(line)) {
		t.Fatal("the line was not taken for one of slog's")
	}
	if !strings.Contains(out.String(), "asn=4200000001 ") {
		t.Errorf("logged: %s", out.String())
	}
	for _, not := range []string{"panic: no", "{", `{"msg":1}`} {
		if new(process).passOn(log, []byte(not)) {
			t.Errorf("%q was taken for a line of slog's", not)
		}
	}
}
