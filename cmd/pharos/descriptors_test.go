package main

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// TestDescriptorsForTheRest: clients that take every descriptor that forwarding may have, by TCP, by HTTP, or by requests that all want a backend at
// once, or that DNS may have, are refused and counted, and the node goes on: it checks backends, answers the admin socket and DNS over TCP, and
// takes clients again when those have left.
func TestDescriptorsForTheRest(t *testing.T) {
	t.Parallel()
	const files, flood = 400, 600 // a quarter of files is kept
	r := newUpgradeRig(t)
	var checks atomic.Int64
	r.files, r.web = files, checked(t, &checks)
	r.write(fmt.Sprintf(`
sites: {fra: {location: FRA, nodes: {n1: 127.0.0.1}}}
cluster: {port: %d, wait: 2s}
services:
  web: {check: {http: {path: /healthz}, every: 1s}, backends: {fra: ["%s"]}}
  echo: {check: {tcp: {}, every: 1s}, backends: {fra: ["%s"]}}
listeners:
  - {bind: "127.0.0.1:%d", http: {routes: [{service: web}]}}
  - {bind: "127.0.0.1:%d", tcp: {service: echo}}
  - {bind: "127.0.0.1:%d", udp: {service: echo, idle: 1s}}
zones: {example.test: {records: "www IN A 192.0.2.1"}}
dns: {listen: "127.0.0.1:%d"}
`, r.gossip, r.web, r.echo, r.http, r.tcp, r.tcp, r.dns))
	r.start()
	tcp, web, dns := fmt.Sprintf("127.0.0.1:%d", r.tcp), fmt.Sprintf("127.0.0.1:%d", r.http), fmt.Sprintf("127.0.0.1:%d", r.dns)
	refused := func(series string) float64 {
		t.Helper()
		v, err := strconv.ParseFloat(cmp.Or(r.metric(series), "0"), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	forwards := func() bool {
		c, err := net.DialTimeout("tcp", tcp, 5*time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		return pingPong(c, "again") == nil
	}
	const all = "pharos_forward_refused_descriptors_total"
	for _, tt := range []struct{ network, address, first, then, series string }{
		{"udp", tcp, "x", "y", all},
		{"tcp", tcp, "x", "y", `pharos_l4_dropped_connections_total{reason="descriptors"}`},
		{"tcp", web, "G", "ET / HTTP/1.1\r\nHost: a\r\n\r\n", "pharos_l7_refused_connections_total"},
		{"tcp", dns, "\x00", "\x10", `pharos_dnslb_tcp_connections_total{event="refused"}`}, // half of files at most: none is idle to make room
	} {
		before := refused(tt.series)
		conns := crowd(tt.network, tt.address, tt.first, flood)
		r.within(20*time.Second, tt.network+": those beyond are refused", func() bool { return refused(tt.series) >= before+flood-files })
		short := refused(all)
		for _, c := range conns {
			c.Write([]byte(tt.then))
		}
		if tt.address == web {
			r.within(20*time.Second, "connections to backends are refused", func() bool { return refused(all) >= short+(files-files/4)/2 })
		}
		if tt.address == dns {
			r.within(20*time.Second, "dns: forwarding takes clients", forwards)
		} else if tt.network == "tcp" {
			const kept = `pharos_dnslb_tcp_connections_total{event="descriptors"}`
			short := refused(kept)
			conns = append(conns, crowd("tcp", dns, "\x00", flood/4)...) // more than DNS may have of what forwarding leaves
			r.within(20*time.Second, "dns: those beyond are refused", func() bool { return refused(kept) > short })
			r.within(20*time.Second, "dns: answered over TCP", func() bool { return r.queries("tcp").once() == nil })
		}
		at := checks.Load()
		r.within(20*time.Second, tt.network+": checks go on", func() bool { return checks.Load() >= at+4 })
		for _, c := range conns {
			c.Close()
		}
		r.within(20*time.Second, tt.network+": clients are taken again", forwards)
	}
}

// crowd is so many clients, 20 of each network, which have sent the first of something.
func crowd(network, address, first string, clients int) (conns []net.Conn) {
	for i := range clients {
		d := net.Dialer{Timeout: 5 * time.Second}
		if network == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/20), 9)}
		}
		c, err := d.Dial(network, address)
		if err != nil {
			continue // the reset was faster
		}
		c.Write([]byte(first))
		conns = append(conns, c)
	}
	return conns
}

// checked is a web server that counts checks, and answers nothing else as long as somebody waits.
func checked(t *testing.T, checks *atomic.Int64) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			checks.Add(1)
			return
		}
		<-r.Context().Done()
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}
