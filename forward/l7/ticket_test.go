package l7

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/cert"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
)

// keptSession is a client that keeps the first session it gets.
type keptSession struct{ state *tls.ClientSessionState }

func (k *keptSession) Get(string) (*tls.ClientSessionState, bool) { return k.state, k.state != nil }

func (k *keptSession) Put(_ string, state *tls.ClientSessionState) {
	if k.state == nil {
		k.state = state
	}
}

// sessions are a client's, by version.
type sessions map[uint16]*keptSession

// resumes says whether a client with the session resumes it at t.
func resumes(test *testing.T, t *terminator, version uint16, session *keptSession) bool {
	test.Helper()
	near, far := net.Pipe()
	server := tls.Server(far, t.config.Load())
	done := make(chan error, 1)
	go func() {
		defer far.Close()
		err := server.Handshake()
		if err == nil {
			_, err = io.WriteString(server, "x") // what a client of TLS 1.3 reads its tickets with
		}
		done <- err
	}()
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, ServerName: "a.test", MinVersion: version, MaxVersion: version, ClientSessionCache: session})
	_, err := io.ReadFull(client, make([]byte, 1))
	if served := <-done; err != nil || served != nil {
		test.Fatal(err, served)
	}
	near.Close()
	return client.ConnectionState().DidResume
}

// fresh returns a new session with at for each version.
func fresh(t *testing.T, at *terminator) sessions {
	t.Helper()
	out := sessions{}
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		out[v] = &keptSession{}
		resumes(t, at, v, out[v])
	}
	return out
}

// TestTicketKeysRotate: the key changes with the time while the server runs, a node whose clock is behind takes part, and
// a ticket is good for two more keys and no longer.
func TestTicketKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certtest.New(t)
		registry, err := forward.New(forward.Options{Pools: &fakePools{}})
		if err != nil {
			t.Fatal(err)
		}
		defer registry.Close()
		pair, key := ca.Write("long", certtest.Leaf{Names: []string{"a.test"}, NotAfter: time.Now().Add(10 * cert.TicketLife)})
		opts := &TLS{Certificates: []cert.File{{Certificate: pair, Key: key}}, TicketSecrets: [][]byte{[]byte("shared by the nodes")}}
		node := func() *Server {
			s, err := New(Options{
				Registry: registry, Listeners: []Listener{{Address: netip.MustParseAddrPort("127.0.0.1:0"), Routes: anyRoute, TLS: opts}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
		runs, late := node(), node() // nobody tends late: its clock stands still
		here, behind := (*runs.terminators.Load())[0], (*late.terminators.Load())[0]
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go runs.tendCertificates(ctx)

		time.Sleep(time.Hour) // into a key's time
		expect := func(what string, sessions sessions, at *terminator, want bool) {
			t.Helper()
			for v, session := range sessions {
				if got := resumes(t, at, v, session); got != want {
					t.Errorf("%s, %s: resumed %v, want %v", what, tls.VersionName(v), got, want)
				}
			}
		}
		first := fresh(t, here)
		expect("a ticket of the same key, on another node", first, behind, true)

		time.Sleep(cert.TicketLife)
		second, lates := fresh(t, here), fresh(t, behind)
		expect("one key later, a ticket of the key before", first, here, true)
		expect("a ticket of the new key, on a node that is behind", second, behind, true)
		expect("a new ticket of a node that is behind", lates, here, true)

		time.Sleep(cert.TicketLife)
		expect("two keys later", first, here, true)
		expect("a ticket of two keys ahead, on a node that is two behind", fresh(t, here), behind, false)

		time.Sleep(cert.TicketLife)
		expect("three keys later", first, here, false)
		expect("the second key's, two keys later", second, here, true)
	})
}
