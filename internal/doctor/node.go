package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/pharos-lb/pharos/internal/admin"
)

// checkConfig compares the configuration on disk with the one in force. That it is valid its reader has seen to.
func checkConfig(_ context.Context, c *Case) (out []Finding) {
	file := c.Setup.Config.File
	for _, w := range c.Setup.Warnings {
		out = append(out, note(file, w, "", ""))
	}
	if st := c.Status; st != nil {
		if st.Config.LastError != "" {
			first, _, _ := strings.Cut(st.Config.LastError, "\n")
			return append(out, problem(file, "the newest reload was refused: "+first, "the configuration that is in force is an older one",
				"mend it, see it pass `pharos validate "+file+"`, then `pharos reload`"))
		}
		if hash := fmt.Sprintf("%016x", c.Setup.Config.Hash); hash != st.Config.Hash {
			return append(out, problem(file, fmt.Sprintf("it has changed since the node loaded it (%s on disk, %s in force)", hash, st.Config.Hash),
				"nobody has reloaded it", "`pharos reload`; what follows is judged by the file"))
		}
	}
	return append(out, fine(file, "valid, %016x", c.Setup.Config.Hash))
}

// checkNode looks at the process.
func checkNode(_ context.Context, c *Case) []Finding {
	self := "node " + c.Setup.Self.Node.Name
	st := c.Status
	if c.Trouble != nil {
		return []Finding{problem(self, c.Trouble.Error(), "its process hangs, or this user may not ask it", "run this as the user of the node, or look at the process")}
	}
	if st == nil {
		return []Finding{note(self, "it does not run on this machine, as far as its socket tells", "",
			"only what can be seen without it is looked at; `pharos run --config "+c.Setup.Config.File+" --node "+c.Setup.Self.Node.Name+"` starts it")}
	}
	if st.State != "serving" {
		return []Finding{problem(self, "it is "+st.State, "it serves only when its checks have their first verdicts and its sockets are open, or no longer because it ends",
			"`pharos status` says what it waits for")}
	}
	out := []Finding{fine(self, "serving, version %s, process %d", st.Version, st.PID)}
	if n := len(st.Degraded); n > 0 {
		out = append(out, note(self, fmt.Sprintf("its status lists %d things that are not as they should be, the first: %s", n, st.Degraded[0]), "", "`pharos status`"))
	}
	return out
}

// checkCluster looks at who is heard.
func checkCluster(_ context.Context, c *Case) (out []Finding) {
	if c.Status == nil {
		return nil
	}
	heard := 0
	port := c.Setup.Config.Cluster.Port
	for _, m := range c.Status.Members {
		subject := "node " + m.Name
		switch {
		case m.Self:
		case m.State == admin.MemberAbsent:
			out = append(out, problem(subject, "was never heard", fmt.Sprintf("it does not run, port %d (TCP and UDP) is blocked on the way, or its gossip key is another", port),
				"look at `pharos status` there; open the port both ways; compare the keys with `pharos keys`"))
		case !m.Heard:
			out = append(out, problem(subject, fmt.Sprintf("is %s and not heard now", m.State), fmt.Sprintf("it is down, hangs, or port %d is cut", port),
				"look at `pharos status` there, and at the path between the two"))
		case c.Status.Config.Hash != m.Config && m.Config != "":
			heard++
			out = append(out, note(subject, "has another configuration ("+m.Config+")", "a roll-out that is under way, or was forgotten", "`pharos reload` there, with the same file"))
		default:
			heard++
		}
	}
	return append(out, fine("cluster", "%d of %d other nodes are heard", heard, max(0, len(c.Status.Members)-1)))
}
