package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/node"
	"github.com/pharos-lb/pharos/internal/steer"
)

// explainFlags are the flags of explain.
type explainFlags struct {
	from, config, socket, format string
	down                         []string
}

func newExplain() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain NAME [A|AAAA]",
		Short: "Trace one DNS answer: who asks, what was decided, why",
		Long: `Explain traces the answer to one client: where it is (and how old the data that
says so is), what each step of the policy did, every site with the reason of its
exclusion, and the answer with its TTL and ECS scope.

It asks the running node, so it shows what is answered now; with --config it
needs no node and takes everything for healthy. --down assumes sites or backends
to be down, and changes nothing.`,
		Example: `  pharos explain www.example.com --from 81.2.69.142
  pharos explain www.example.com AAAA --from 2001:db8::1 --down fra,iad
  pharos explain www.example.com --from 46.4.0.1 --config pharos.yaml -o json`,
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.from, "from", "", "the client's address, or any address of its network (required)")
	fl.StringSliceVar(&f.down, "down", nil, "sites or backends to assume down")
	fl.StringVarP(&f.config, "config", "c", "", "explain from this file instead of a running node")
	addSocket(cmd, &f.socket)
	addFormat(cmd, &f.format)
	cmd.AddCommand(newExplainHTTP())
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command, args []string) error {
	if err := checkFormat(cmd, f.format); err != nil {
		return err
	}
	request := admin.ExplainRequest{Name: args[0], Down: f.down}
	if len(args) == 2 {
		switch strings.ToUpper(args[1]) {
		case "A":
		case "AAAA":
			request.IPv6 = true
		default:
			return usage(cmd, fmt.Errorf("type %q: want A or AAAA", args[1]))
		}
	}
	var err error
	if request.From, err = parseFrom(f.from); err != nil {
		return usage(cmd, err)
	}
	explanation, err := f.explain(cmd, request)
	if err != nil {
		return err
	}
	if f.format == formatJSON {
		return writeJSON(cmd.OutOrStdout(), explanation)
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), explanation.Text())
	return err
}

// parseFrom takes an address, or a prefix for its first address.
func parseFrom(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, errors.New("--from is missing: the client's address")
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr(), nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("--from %q: not an IP address or prefix", text)
	}
	return addr, nil
}

func (f *explainFlags) explain(cmd *cobra.Command, r admin.ExplainRequest) (*steer.Explanation, error) {
	if f.config == "" {
		return findClient(cmd, f.socket).Explain(cmd.Context(), r)
	}
	setup, err := node.Load(f.config, "")
	if err != nil {
		return nil, err
	}
	if err := setup.Topology.CheckAssumptions(r.Down); err != nil {
		return nil, err
	}
	plan := steer.AllUp(setup.Topology, steer.Facts{Now: time.Now(), AssumeDown: r.Down})
	return steer.Explain(plan, steer.Question{Name: r.Name, IPv6: r.IPv6, From: r.From})
}
