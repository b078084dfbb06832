package cluster

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/health"
)

const (
	// maxNameLen is the longest node name, as in a report.
	maxNameLen = health.MaxObserverLen
	// maxKeys bounds the keyring.
	maxKeys = 16
	// maxSeeds is how many configured nodes are looked for.
	maxSeeds = 1024
)

// Options describe a Node. Name, Bind and Deliver are required.
type Options struct {
	// Name is the node's name, unique in the cluster, 1 to 63 bytes. It is the
	// observer of the reports that are published.
	Name string
	// Label is the cluster's name, at most 255 bytes. Whoever has another one is
	// refused. It is not secret.
	Label string
	// Bind is the address that gossip is received on, over UDP and TCP. With port
	// 0 the kernel chooses one.
	Bind netip.AddrPort
	// Advertise is where the others reach this node. Zero means Bind, which must
	// then not be unspecified; a zero port means the one bound.
	Advertise netip.AddrPort
	// Keys encrypt and authenticate gossip: 16, 24 or 32 bytes each, for AES-128,
	// -192 or -256. The first is sent with, all are accepted. None means that
	// gossip is neither encrypted nor authenticated.
	Keys [][]byte
	// Seeds are the addresses of every other configured node. Our own is ignored.
	Seeds []netip.AddrPort
	// Meta is what the node tells of itself.
	Meta Meta
	// Epoch is the epoch of the reports that will be published. It must have been
	// made durable.
	Epoch uint64
	// Deliver receives every newer report of another observer; a report that has
	// the epoch and sequence number of the last one but says something else; and
	// a report of this node's own name whose epoch is higher than any published
	// here, which a wiped node must exceed from then on. age is how old the report
	// is now. For one observer (epoch, seq) never decreases. Deliver is called by
	// one goroutine, must not block, and must not change the report.
	Deliver func(r *health.Report, age time.Duration)
	// DeliverOverrides receives override registers of others that differ from what
	// was published here last; nil means that they are not carried. Each could be
	// read, is properly signed if it must be, and may well be older than ours.
	// Whoever takes one over calls PublishOverrides. It is called by the goroutine
	// that calls Deliver, must not block, and may keep the slice.
	DeliverOverrides func([]health.Override)
	// SignKey signs our reports, the registers that we wrote, and as their holder those
	// whose writer's signature we lack; nil means that they go without signature.
	SignKey ed25519.PrivateKey
	// PublicKeys are those of the observers, by name, whose reports and registers
	// must be signed: what says to be theirs and is not changes nothing (a register
	// counts with the signature of any of them that holds it). Of those
	// without a key everything is taken, so keys protect a fleet once every node
	// has one. Nodes of the first wire version cannot sign.
	PublicKeys map[string]ed25519.PublicKey
	// Discover finds further nodes to join, in addition to Seeds: it is asked at
	// the start and every 10 to 15 s, and has 5 s to answer. What it found last
	// stands if it finds nothing. It is called by a goroutine of its own. Nil
	// means none.
	Discover func(ctx context.Context) []netip.AddrPort
	// Answer answers a question of another node, see Node.Ask. from is what the
	// asking node calls itself. It is called by one goroutine of its own, at most
	// 20 times a second; nil as an answer means none, as does more than 64 KiB.
	// Nil means that no question is answered.
	Answer func(from string, question []byte) []byte
	// Log receives transitions; nil discards them.
	Log *slog.Logger
	// Registerer receives the metrics; nil means none.
	Registerer prometheus.Registerer

	// pace replaces defaultPace, and transport the network, in tests.
	pace      *pace
	transport transport
}

// validate returns everything that is wrong with o.
func (o Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cluster: "+format, args...)) }
	if o.Name == "" || len(o.Name) > maxNameLen {
		bad("node name %q must have 1 to %d bytes", o.Name, maxNameLen)
	}
	if len(o.Label) > memberlist.LabelMaxSize {
		bad("label of %d bytes, at most %d", len(o.Label), memberlist.LabelMaxSize)
	}
	if !o.Bind.IsValid() {
		bad("no address to bind gossip to")
	} else if !o.Advertise.IsValid() && o.Bind.Addr().IsUnspecified() {
		bad("gossip is bound to %s: the address that others reach this node at must be given", o.Bind)
	}
	if o.Advertise.IsValid() && o.Advertise.Addr().IsUnspecified() {
		bad("address to advertise %s reaches nobody", o.Advertise)
	}
	if err := checkKeys(o.Keys); err != nil {
		bad("%w", err)
	}
	if n := len(o.SignKey); n != 0 && n != ed25519.PrivateKeySize {
		bad("key to sign with has %d bytes, want %d", n, ed25519.PrivateKeySize)
	}
	if len(o.PublicKeys) > maxMembers {
		bad("%d public keys, at most %d", len(o.PublicKeys), maxMembers)
	}
	if err := checkPublicKeys(o.PublicKeys); err != nil {
		bad("%w", err)
	}
	if len(o.Seeds) > maxSeeds {
		bad("%d nodes to look for, at most %d", len(o.Seeds), maxSeeds)
	}
	if err := o.Meta.check(); err != nil {
		bad("%w", err)
	}
	if o.Deliver == nil {
		bad("nobody to deliver reports to")
	}
	return errors.Join(errs...)
}
