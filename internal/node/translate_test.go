package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pharos-lb/pharos/forward/l4"
	"github.com/pharos-lb/pharos/forward/l4/udp"
)

// TestServiceGone: the policy of a service reaches both engines, and wins over that of the listener; limits of sessions arrive.
func TestServiceGone(t *testing.T) {
	s := parse(t, `
sites: {fra: {location: FRA, nodes: {a1: 127.0.0.1}}}
services:
  a: {backends: {fra: [10.0.0.1:1]}, backend_gone: drain, gone_after: 1m}
  b: {backends: {fra: [10.0.0.1:2]}}
  c: {backends: {fra: [10.0.0.1:3]}, backend_gone: abort}
  d: {backends: {fra: [10.0.0.1:4]}, backend_gone: keep}
listeners:
  - {bind: "node:1", udp: {service: a, backend_gone: abort, limits: {rate: 3, client_rate: 4, client_ipv4: 24, client_ipv6: 56, clients: 100}}}
  - {bind: "node:2", udp: {service: b, gone_after: 1s}}
  - {bind: "node:3", udp: {service: d}}
  - {bind: "node:4", tcp: {routes: [{sni: c.test, service: c}, {service: b}], backend_gone: drain, gone_after: 1s}}
`)
	type departure struct {
		policy udp.Gone
		after  time.Duration
	}
	var got []departure
	for _, l := range s.udpListeners() {
		got = append(got, departure{l.BackendGone, l.GoneAfter})
	}
	want := []departure{{udp.GoneDrain, time.Minute}, {udp.GoneSilent, time.Second}, {udp.GoneKeep, 0}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(departure{})); diff != "" {
		t.Errorf("udp: -want +got:\n%s", diff)
	}
	limits := udp.Limits{Rate: 3, ClientRate: 4, ClientBits4: 24, ClientBits6: 56, Table: 100}
	if got := s.udpListeners()[0].Limits; got != limits {
		t.Errorf("udp: limits are %+v, want %+v", got, limits)
	}
	l := s.l4Listeners()[0]
	if l.BackendGone != (l4.Departure{Policy: l4.GoneDrain, After: time.Second}) {
		t.Errorf("tcp: got %+v of the listener", l.BackendGone)
	}
	services := map[string]l4.Departure{"a": {Policy: l4.GoneDrain, After: time.Minute}, "c": {Policy: l4.GoneAbort}, "d": {Policy: l4.GoneKeep}}
	if diff := cmp.Diff(services, l.ServiceGone); diff != "" {
		t.Errorf("tcp: -want +got:\n%s", diff)
	}
}
