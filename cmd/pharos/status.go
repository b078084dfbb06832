package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

func newStatus() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running node knows and does",
		Long: `Status shows the services at every site with the reason of each exclusion, the
routes and BGP sessions of this node, the other nodes, and the configuration in
force. Exit code 2 means that something is not as it should be; the first lines
say what.`,
		Example: "  pharos status\n  pharos status -o json | jq .degraded",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			st, err := findClient(cmd, socket).Status(cmd.Context())
			if err != nil {
				return err
			}
			if format == formatJSON {
				err = writeJSON(cmd.OutOrStdout(), st)
			} else {
				err = printStatus(cmd.OutOrStdout(), st, time.Now())
			}
			if err == nil && len(st.Degraded) > 0 {
				return errDegraded
			}
			return err
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	return cmd
}

func printStatus(out io.Writer, st *admin.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "node %s at %s, %s for %s, pharos %s, configuration %s (%s), plan %d\n", st.Node, st.Site, st.State,
		since(st.Started, now), st.Version, st.Config.File, st.Config.Hash, st.Generation)
	fmt.Fprintf(w, "geo data %s, %d days old\n", st.Geo.Name, st.Geo.AgeDays)
	if len(st.Degraded) == 0 {
		fmt.Fprintln(w, "healthy")
	}
	for _, d := range st.Degraded {
		fmt.Fprintln(w, "! "+d)
	}
	printOrders(w, st)
	fmt.Fprintln(w, "\nSERVICE\tSITE\tANSWERED\tVIP\tBACKENDS\tWHY")
	for _, svc := range st.Services {
		for _, site := range svc.Sites {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", svc.Name, site.Site, yesNo(site.Eligible),
				targets(site.VIPs), targets(site.Backends), with(site.Why.String(), site.Override))
		}
	}
	printForwarding(w, st)
	if len(st.Routes) > 0 {
		fmt.Fprintln(w, "\nPREFIX\tANNOUNCED\tWHY")
	}
	for _, r := range st.Routes {
		why := r.Why.String()
		announced := r.Announce && r.Installed
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
		if r.Cause != "" {
			why += " (" + r.Cause + ")"
		}
		if r.Lacks != "" {
			why += ": " + r.Lacks
		}
		if left := r.Until.Sub(now); left > 0 {
			why += ", " + left.Round(time.Second).String() + " left"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Prefix, yesNo(announced), with(why, r.Override))
	}
	if len(st.Drains) > 0 {
		fmt.Fprintln(w, "\nDRAINED\tSTAGE\tBY THE ORDER ON")
	}
	for _, d := range st.Drains {
		fmt.Fprintf(w, "%s\t%s\t%s\n", d.What, d.Text(), d.Scope)
	}
	if st.Speaker != nil {
		fmt.Fprintln(w, "\nBGP PEER\tASN\tSESSION\tSINCE\tSENT\tLAST ERROR")
		for _, p := range st.Speaker.Peers {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%s\n", p.Address, p.ASN, p.State, since(p.Since, now), p.Sent, p.LastError)
		}
	}
	fmt.Fprintln(w, "\nMEMBER\tSITE\tHEARD\tVERSION\tCONFIGURATION")
	for _, m := range st.Members {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Site, yesNo(m.Heard), m.Version, m.Config)
	}
	fmt.Fprintln(w)
	for _, l := range st.Listeners {
		fmt.Fprintln(w, "listening: "+l)
	}
	return w.Flush()
}

// mostNamed is how many backends of a pool are named.
const mostNamed = 4

// printForwarding lists the pools of this node's site.
func printForwarding(w io.Writer, st *admin.Status) {
	if len(st.Forwarding) > 0 {
		fmt.Fprintln(w, "\nSERVICE\tBALANCE\tOVERFLOW\tFORWARDED HERE TO")
	}
	for _, p := range st.Forwarding {
		overflow := "–"
		if len(p.Overflow) > 0 {
			overflow = strings.Join(p.Overflow, ", ")
		}
		balance := p.Balance
		if p.Zones != "" {
			balance += ", " + p.Zones
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Service, balance, overflow, forwardedTo(p.Backends))
	}
}

// forwardedTo names the backends, those first that are not just active.
func forwardedTo(all []admin.ForwardStatus) string {
	var plain, odd []string
	for _, b := range all {
		notes := []string{fmt.Sprintf("%d open", b.Open)}
		if b.Zone != "" {
			notes[0] += ", zone " + b.Zone
		}
		switch {
		case b.Elsewhere:
			notes = append(notes, "another site's VIP")
		case !b.Active:
			notes = append(notes, "no new work")
		case b.Panic:
			notes = append(notes, "panic")
		case b.Share < 1:
			notes = append(notes, fmt.Sprintf("slow start %.0f %%", 100*b.Share))
		}
		if !b.Elsewhere && b.EffectiveWeight < float64(b.Weight) {
			notes = append(notes, fmt.Sprintf("weight %.3g of %d", b.EffectiveWeight, b.Weight))
		}
		if b.Ejected != "" {
			notes = append(notes, fmt.Sprintf("ejected for %s, %.0fs left", b.Ejected, b.EjectedSeconds))
		}
		text := b.Address.String() + " (" + strings.Join(notes, ", ") + ")"
		if len(notes) > 1 {
			odd = append(odd, text)
		} else {
			plain = append(plain, text)
		}
	}
	texts := append(odd, plain...)
	if len(texts) > mostNamed {
		texts = append(texts[:mostNamed:mostNamed], fmt.Sprintf("and %d more", len(texts)-mostNamed))
	}
	if len(texts) == 0 {
		return "–"
	}
	return strings.Join(texts, ", ")
}

// printOrders lists the operators' orders, which explain much of what follows.
func printOrders(w io.Writer, st *admin.Status) {
	if len(st.Overrides) > 0 {
		fmt.Fprintln(w, "\nSCOPE\tORDER")
	}
	for _, o := range st.Overrides {
		fmt.Fprintf(w, "%s\t%s\n", o.Scope, o.Text())
	}
}

// with adds the order that stands on something to what is said of it.
func with(text, override string) string {
	if override == "" {
		return text
	}
	return text + " (" + override + ")"
}

// targets writes "2 of 2 up", and names what is not or has an order on it.
func targets(list []admin.TargetStatus) string {
	if len(list) == 0 {
		return "–"
	}
	up := 0
	var rest []string
	for _, t := range list {
		if t.Status == "up" {
			up++
		}
		if t.Status != "up" || t.Override != "" {
			rest = append(rest, with(t.Address.String()+" "+t.Status, t.Override))
		}
	}
	text := fmt.Sprintf("%d of %d up", up, len(list))
	if len(rest) > 0 {
		text += ": " + strings.Join(rest, ", ")
	}
	return text
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return now.Sub(t).Round(time.Second).String()
}
