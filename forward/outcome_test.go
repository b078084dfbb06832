package forward

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestOutcomeOfConnecting: a refusal is told of the backend that it came from.
func TestOutcomeOfConnecting(t *testing.T) {
	type told struct {
		service string
		address netip.AddrPort
		ok      bool
	}
	var got []told
	refuses, takes := nobody(t), holder(t)
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: []Member{{Address: refuses, Active: true}, {Address: takes, Active: true}}})
	r := newRegistry(t, Options{Pools: pools, Outcome: func(service string, address netip.AddrPort, ok bool) {
		got = append(got, told{service, address, ok})
	}})
	for len(got) == 0 { // until the one that refuses is drawn
		lease, err := r.Load().Borrow(t.Context(), "web", Terms{Connect: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		lease.Release(false)
	}
	if want := (told{"web", refuses, false}); len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %v", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Load().Borrow(ctx, "web", Terms{Connect: time.Second})
	if len(got) != 1 {
		t.Errorf("what we gave up ourselves was told: %v", got)
	}
}

func TestOutcomeOfAnswers(t *testing.T) {
	said := ""
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: many(1)})
	r := newRegistry(t, Options{Pools: pools, Outcome: func(_ string, _ netip.AddrPort, ok bool) { said = fmt.Sprint(ok) }})
	b := r.Load().pools["web"].active[0]
	for o, want := range map[Outcome]string{
		OutcomeServed: "true", OutcomeError: "false", OutcomeReset: "false",
		OutcomeTimeout: "false", OutcomeProtocol: "false", OutcomeClient: "",
	} {
		said = ""
		b.ReportAnswer(o)
		if said != want {
			t.Errorf("%s: told %q, want %q", o, said, want)
		}
		if got := b.status().Outcomes[o]; got != 1 {
			t.Errorf("%s: counted %d times", o, got)
		}
	}
	said = ""
	if b.Report(OutcomeReset); said != "" {
		t.Error("Report tells")
	}
}

func TestIsLocal(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{
		syscall.ECONNREFUSED: false, syscall.ETIMEDOUT: false, syscall.EHOSTUNREACH: false,
		syscall.EMFILE: true, syscall.EADDRNOTAVAIL: true, syscall.EPERM: true,
	} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}
		if got := isLocal(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
}

// TestNobodyAsks: without the hook, outcomes cost nothing.
func TestNobodyAsks(t *testing.T) {
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: many(1)})
	b := newRegistry(t, Options{Pools: pools}).Load().pools["web"].active[0]
	if n := testing.AllocsPerRun(100, func() { b.ReportAnswer(OutcomeServed); b.Tell(false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
