package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

// statusVerb is a verb that shows one part of a node's status. It ends with exitDegraded when show says that something
// is not as it should be.
func statusVerb(cmd *cobra.Command, part func(*admin.Status) any, show func(io.Writer, *admin.Status, time.Time) (fine bool, err error)) *cobra.Command {
	var socket, format string
	cmd.Args = usageArgs(cobra.NoArgs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(cmd, format); err != nil {
			return err
		}
		st, err := findClient(cmd, socket).Status(cmd.Context())
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if format == formatJSON {
			out = io.Discard
			if err := writeJSON(cmd.OutOrStdout(), part(st)); err != nil {
				return err
			}
		}
		fine, err := show(out, st, time.Now())
		if err == nil && !fine {
			return errDegraded
		}
		return err
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	return cmd
}

func newPeers() *cobra.Command {
	return statusVerb(&cobra.Command{
		Use:   "peers",
		Short: "Show this node's BGP and BFD sessions",
		Long: `Peers shows the sessions with this site's routers: how far each has come, since when,
BFD beside it, how many routes it was sent, and why it is not up. Exit code 2 means
that a session or its BFD is not up.`,
		Example: "  pharos peers\n  pharos peers -o json | jq '.[].bfd'",
	}, func(st *admin.Status) any {
		if st.Speaker == nil {
			return []admin.PeerStatus{}
		}
		return st.Speaker.Peers
	}, printPeers)
}

func printPeers(out io.Writer, st *admin.Status, now time.Time) (fine bool, err error) {
	if st.Speaker == nil {
		_, err := fmt.Fprintf(out, "node %s has no BGP: bgp.peers names no router of site %s\n", st.Node, st.Site)
		return true, err
	}
	fine = st.Speaker.State == "running"
	if !fine {
		fmt.Fprintf(out, "! the BGP speaker is %s: %s\n", st.Speaker.State, st.Speaker.LastError)
	}
	w := newTable(out)
	fmt.Fprintln(w, "PEER\tASN\tSESSION\tFOR\tBFD\tDETECTS IN\tFAILURES\tSENT\tWHY")
	for _, p := range st.Speaker.Peers {
		state, detects, failures, why := "–", "–", "–", p.LastError
		if p.State != "established" {
			fine = false
		}
		if b := p.BFD; b != nil {
			state, failures = b.State, fmt.Sprint(b.Failures)
			if b.DetectionMS > 0 {
				detects = (time.Duration(b.DetectionMS) * time.Millisecond).String()
			}
			if b.State != "up" {
				fine = false
				why = cmp.Or(why, "BFD: "+b.LastError)
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", p.Address, p.ASN, p.State, since(p.Since, now), state, detects, failures, p.Sent, why)
	}
	for _, r := range st.Speaker.Ranges {
		why := cmp.Or(r.Error, "routers may connect from it")
		if r.Full {
			why = "no more are let in (max_peers)"
		}
		fine = fine && r.Error == ""
		fmt.Fprintf(w, "%s\t%d\t%d of %d\t–\t–\t–\t–\t–\t%s\n", r.From, r.ASN, r.Sessions, r.MaxPeers, why)
	}
	return fine, w.Flush()
}

func newRoutes() *cobra.Command {
	return statusVerb(&cobra.Command{
		Use:   "routes",
		Short: "Show what this node announces to whom, and why",
		Long: `Routes shows every prefix of the configuration at this node: whether the plan wants it
announced, whether the speaker holds it, and the reason. Below, for each router: whether it
is to hear of the prefix, whether it was sent (the Adj-RIB-Out), whether the router took it,
and who sees it elsewhere. BGP does not tell what a router took: that is known only where
nodes look at other routers (look: true at a peer); else it says unknown.

Exit code 2 means that a prefix is wanted and not sent to a router that should hear it, or
that a router does not take it.`,
		Example: "  pharos routes\n  pharos routes -o json | jq '.[].peers'",
	}, func(st *admin.Status) any {
		if st.Routes == nil {
			return []admin.RouteStatus{}
		}
		return st.Routes
	}, printRoutes)
}

func printRoutes(out io.Writer, st *admin.Status, _ time.Time) (fine bool, err error) {
	fine = true
	w := newTable(out)
	fmt.Fprintln(w, "PREFIX\tWANTED\tHELD\tSENT\tWHY")
	for _, r := range st.Routes {
		why := r.Why.String()
		switch {
		case r.Error != "":
			why = r.Error
		case r.Announce && !r.Installed:
			why = "the BGP speaker does not hold it yet"
		case r.Announce && r.Why == steer.ReasonNone:
			why = "everything it requires is servable"
		}
		if r.Blame != "" {
			why = "service " + r.Blame + ": " + why
		}
		if r.Lacks != "" {
			why += ": " + r.Lacks
		}
		wanted, sent := 0, 0
		for _, p := range r.Peers {
			if p.Wanted {
				wanted++
			}
			if p.Sent {
				sent++
			}
			fine = fine && p.Accepted != admin.AcceptedNo
		}
		fine = fine && (!r.Announce || r.Installed && r.Error == "" && sent == wanted)
		fmt.Fprintf(w, "%s\t%s\t%s\t%d of %d\t%s\n", r.Prefix, yesNo(r.Announce), yesNo(r.Installed), sent, wanted, with(why, r.Override))
	}
	if err := w.Flush(); err != nil {
		return fine, err
	}
	return fine, printRoutePeers(out, st.Routes)
}

// printRoutePeers shows each prefix at each router.
func printRoutePeers(out io.Writer, routes []admin.RouteStatus) error {
	if !slices.ContainsFunc(routes, func(r admin.RouteStatus) bool { return len(r.Peers) > 0 }) {
		return nil
	}
	fmt.Fprintln(out)
	w := newTable(out)
	fmt.Fprintln(w, "PREFIX\tPEER\tWANTED\tSENT\tACCEPTED\tSEEN BY\tSAYS")
	for _, r := range routes {
		for _, p := range r.Peers {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Prefix, p.Address, yesNo(p.Wanted), yesNo(p.Sent), p.Accepted, seenBy(p), says(p))
		}
	}
	return w.Flush()
}

// seenBy are the nodes whose routers have a prefix through a router.
func seenBy(p admin.RoutePeerStatus) string {
	switch {
	case p.Seen == admin.SeenNot:
		return "nobody"
	case len(p.SeenBy) == 0:
		return "–"
	}
	var nodes []string
	for _, s := range p.SeenBy {
		nodes = append(nodes, s.Node)
	}
	return strings.Join(slices.Compact(nodes), ", ")
}

// says is what a prefix says of itself at a router.
func says(p admin.RoutePeerStatus) string {
	if !p.Wanted {
		return "–"
	}
	var out []string
	add := func(name string, n uint32) {
		if n > 0 {
			out = append(out, fmt.Sprintf("%s %d", name, n))
		}
	}
	if p.NextHop.IsValid() {
		out = append(out, "via "+p.NextHop.String())
	}
	add("med", p.MED)
	add("local_pref", p.LocalPref)
	add("prepend", uint32(p.Prepend))
	return strings.Join(append(out, p.Communities...), ", ")
}
