package lab

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Status is what the lab sees: its own parts, and what the nodes say.
type Status struct {
	ID       string          `json:"id"`
	Folder   string          `json:"folder"`
	Nodes    []NodeStatus    `json:"nodes"`
	Backends []BackendStatus `json:"backends"`
	// Cuts are the directions that lose packets, as "fra → iad loses 20 %".
	Cuts []string `json:"cuts"`
}

// NodeStatus is one node.
type NodeStatus struct {
	Node      string `json:"node"`
	Site      string `json:"site"`
	Namespace string `json:"namespace"`
	Socket    string `json:"socket"`
	DNS       string `json:"dns"` // where it is asked
	PID       int    `json:"pid"` // 0 = not running
	// State is "not running", "frozen", "does not answer" or what the node says of itself.
	State    string `json:"state"`
	Heard    int    `json:"heard"` // nodes that it hears, itself too
	DiskFull bool   `json:"disk_full"`
	// OffsetSeconds is how far its clock is off.
	OffsetSeconds int64 `json:"clock_offset_seconds"`
	Degraded      int   `json:"degraded"`
}

// BackendStatus is one address at which the lab answers.
type BackendStatus struct {
	Service string `json:"service"`
	Site    string `json:"site"`
	Address string `json:"address"`
	Up      bool   `json:"up"`
	// Missing says what of the configured check it cannot answer.
	Missing string `json:"missing,omitempty"`
}

// Status asks every node.
func (l *Lab) Status(ctx context.Context) *Status {
	st := &Status{ID: l.layout.ID, Folder: l.folder.path, Cuts: []string{}}
	for i, answer := range l.statuses(ctx) {
		p := l.nodes[i]
		c := p.condition()
		member, _ := l.layout.node(p.name)
		row := NodeStatus{
			Node: p.name, Site: l.layout.Members[member].Site, Namespace: l.layout.Namespace(p.name), Socket: p.socket(),
			DNS: l.layout.DNS[i].String(), PID: c.pid, State: "not running", DiskFull: p.full(), OffsetSeconds: int64(c.offset / time.Second),
		}
		switch {
		case c.frozen:
			row.State = "frozen"
		case answer != nil:
			row.State, row.Degraded = answer.State, len(answer.Degraded)
			for _, m := range answer.Members {
				if m.Heard || m.Self {
					row.Heard++
				}
			}
		case c.pid != 0:
			row.State = "does not answer"
		}
		st.Nodes = append(st.Nodes, row)
	}
	for _, b := range l.backends {
		st.Backends = append(st.Backends, BackendStatus{b.plan.Service, b.plan.Site, b.plan.Address.String(), b.up(), b.plan.Missing})
	}
	for _, lane := range l.filter.list() {
		st.Cuts = append(st.Cuts, lane.String())
	}
	return st
}

// Text is the status for people.
func (st *Status) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSITE\tDNS\tPID\tHEARS\tSTATE")
	for _, n := range st.Nodes {
		state := n.State
		if n.Degraded > 0 {
			state += fmt.Sprintf(", %d degraded", n.Degraded)
		}
		if n.DiskFull {
			state += ", disk full"
		}
		if n.OffsetSeconds != 0 {
			state += fmt.Sprintf(", clock off by %s", time.Duration(n.OffsetSeconds)*time.Second)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d of %d\t%s\n", n.Node, n.Site, n.DNS, n.PID, n.Heard, len(st.Nodes), state)
	}
	fmt.Fprintln(w, "\nBACKEND\tSERVICE\tSITE\tSTATE")
	for _, k := range st.Backends {
		state := "down"
		if k.Up {
			state = "up"
		}
		if k.Missing != "" {
			state += "; not simulated: " + k.Missing
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Address, k.Service, k.Site, state)
	}
	w.Flush()
	for i, c := range st.Cuts {
		if i == 0 {
			b.WriteString("\nNOTHING OR LITTLE GETS THROUGH\n")
		}
		b.WriteString(c + "\n")
	}
	return b.String()
}
