package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/node"
	"github.com/pharos-lb/pharos/internal/steer"
)

// explainHTTPFlags are the flags of explain http.
type explainHTTPFlags struct {
	headers                                        []string
	client, listener, config, node, socket, format string
}

func newExplainHTTP() *cobra.Command {
	var f explainHTTPFlags
	cmd := &cobra.Command{
		Use:   "http METHOD URL",
		Short: "Trace one HTTP request: which listener, route and backends take it, and why",
		Long: `Explain http says what a node does with a request: the listener that takes it, who
the client is taken for, what every route says to it and which one takes it, the
service with its policy and its backends, and the request that a backend gets.

It asks the running node and sends no request; with --config it needs no node and
takes every backend for healthy.`,
		Example: `  pharos explain http GET https://www.example.com/api/items --client 192.0.2.7
  pharos explain http POST http://www.example.com/ -H 'X-Canary: yes' -o json
  pharos explain http GET http://www.example.com/ --config pharos.yaml --node fra1`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "a header field, as Name: value; may be repeated")
	fl.StringVar(&f.client, "client", "127.0.0.1", "who connects")
	fl.StringVar(&f.listener, "listener", "", "the listener meant, by its bind, where several are possible")
	fl.StringVarP(&f.config, "config", "c", "", "explain from this file instead of a running node")
	fl.StringVar(&f.node, "node", "", "with --config: which node (default: the first of the file)")
	addSocket(cmd, &f.socket)
	addFormat(cmd, &f.format)
	return cmd
}

func (f *explainHTTPFlags) run(cmd *cobra.Command, args []string) error {
	if err := checkFormat(cmd, f.format); err != nil {
		return err
	}
	q := admin.HTTPQuestion{Method: args[0], URL: args[1], Headers: f.headers, Listener: f.listener}
	var err error
	if q.Client, err = netip.ParseAddr(f.client); err != nil {
		return usage(cmd, fmt.Errorf("--client %q: not an IP address", f.client))
	}
	for _, h := range f.headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || strings.TrimSpace(name) == "" || strings.ContainsAny(h, "\r\n") {
			return usage(cmd, fmt.Errorf("--header %q: want Name: value", h))
		}
	}
	var e *admin.HTTPExplanation
	if f.config == "" {
		e, err = findClient(cmd, f.socket).ExplainHTTP(cmd.Context(), q)
	} else {
		e, err = f.offline(q)
	}
	if err != nil {
		return err
	}
	if f.format == formatJSON {
		return writeJSON(cmd.OutOrStdout(), e)
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), e.Text())
	return err
}

// offline explains from a file, with everything up.
func (f *explainHTTPFlags) offline(q admin.HTTPQuestion) (*admin.HTTPExplanation, error) {
	name := f.node
	if name == "" {
		any, err := node.Load(f.config, "")
		if err != nil {
			return nil, err
		}
		name = any.Config.Sites[0].Nodes[0].Name
	}
	setup, err := node.Load(f.config, name)
	if err != nil {
		return nil, err
	}
	return setup.ExplainHTTP(q, steer.AllUp(setup.Topology, steer.Facts{Now: time.Now()}), nil)
}
