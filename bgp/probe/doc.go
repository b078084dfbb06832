// Package probe finds out why there is no BGP session with a router, without opening one.
//
// It connects as the speaker would (source address, TTL, TTL security, TCP MD5 password) and reads what the router says
// first, which is its OPEN: it tells the AS number, the hold time and the address families. Where the connection fails, it
// is tried with one thing changed at a time, so that a firewall, a password, a distance and TTL security are told apart.
//
// It says nothing to the router unless Options.Open is set, since routers that were spoken to and left back off from a
// session that would come next. internal/doctor sets it where the user asks for it and no node runs, and for a router that has
// refused the OPEN of the node that runs, while its session is idle or active. It must not be used while a session is up: a router that helps with graceful restart takes
// a second connection for a restart of the first. It changes nothing on this machine. internal/doctor calls it.
//
//	r := probe.Run(ctx, probe.Target{Local: self, Peer: router, Port: 179, ASN: 64500, PeerASN: 64496}, probe.Options{})
//	if r.Cause != probe.Spoke { … }
package probe
