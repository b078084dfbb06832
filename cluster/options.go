package cluster

import (
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
	// Log receives transitions; nil discards them.
	Log *slog.Logger
	// Registerer receives the metrics; nil means none.
	Registerer prometheus.Registerer

	// pace replaces defaultPace in tests.
	pace *pace
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
	if len(o.Keys) > maxKeys {
		bad("%d gossip keys, at most %d", len(o.Keys), maxKeys)
	}
	for i, key := range o.Keys[:min(len(o.Keys), maxKeys)] {
		if memberlist.ValidateKey(key) != nil {
			bad("gossip key %d has %d bytes, want 16, 24 or 32", i+1, len(key))
		}
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
