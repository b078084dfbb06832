package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/demo"
)

// Output formats.
const (
	formatTable = "table"
	formatJSON  = "json"
)

func addFormat(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", formatTable, "output format: table or json")
}

func checkFormat(cmd *cobra.Command, format string) error {
	if format != formatTable && format != formatJSON {
		return usage(cmd, fmt.Errorf("--output %q: want table or json", format))
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// count writes "1 site" or "3 sites"; "prefix" and the like take "es".
func count(n int, noun string) string {
	if n != 1 {
		if strings.HasSuffix(noun, "x") {
			noun += "e"
		}
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// defaultSocket is where run listens unless told otherwise.
const defaultSocket = "/run/pharos/pharos.sock"

// socketVariable names the socket for every verb at once.
const socketVariable = "PHAROS_SOCKET"

func addSocket(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", "", "admin socket (default: $"+socketVariable+", "+defaultSocket+", or a running demo's)")
}

// findClient picks the node to talk to: the one that was named, the one that
// runs here, or a node of the demo, which is then said.
func findClient(cmd *cobra.Command, socket string) *admin.Client {
	if socket == "" {
		socket = os.Getenv(socketVariable)
	}
	if socket == "" {
		socket = defaultSocket
		if _, err := os.Stat(socket); err != nil {
			if node, of, ok := demo.FindSocket(); ok {
				fmt.Fprintf(cmd.ErrOrStderr(), "(asking %s of the running demo)\n", node)
				socket = of
			}
		}
	}
	return admin.NewClient(socket)
}

// newTable returns a writer that aligns columns.
func newTable(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) }

// ago writes how long something has been so.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return since(t, now) + " ago"
}
