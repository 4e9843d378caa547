"""One connection that etcd rejects. Arguments: address, port, folder of certificates, name of the way.

The process is called after the way, so that who made a connection is known without probe.
"""
import socket
import ssl
import struct
import sys
import time

HOST, PORT, DIR, WAY = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
with open("/proc/self/comm", "w") as comm:
    comm.write(WAY)


def tcp():
    s = socket.create_connection((HOST, PORT), timeout=5)
    return s


def hello(**versions):
    """A ClientHello as OpenSSL writes it."""
    out = ssl.MemoryBIO()
    client = context(**versions).wrap_bio(ssl.MemoryBIO(), out, server_hostname="etcd.example")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def context(ca="ca", certificate=None, least=None, most=None, ciphers=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    if ca:
        c.load_verify_locations(f"{DIR}/{ca}.crt")
    else:
        c.verify_mode = ssl.CERT_NONE
    if certificate:
        c.load_cert_chain(f"{DIR}/{certificate}.crt", f"{DIR}/{certificate}.key")
    if ciphers:
        c.set_ciphers(ciphers)
    if least:
        c.minimum_version = least
    if most:
        c.maximum_version = most
    return c


def tls(**options):
    """The handshake, a request, and what comes back."""
    c = context(**options)
    if options.get("ca") == "ca" and WAY == "other-name":
        c.check_hostname = True
    with tcp() as s:
        try:
            with c.wrap_socket(s, server_hostname="etcd.example" if WAY == "other-name" else None) as t:
                t.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                t.recv(4096)
        except OSError:
            pass


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def send(data, then=lambda s: s.close(), wait=0.0):
    s = tcp()
    if data:
        s.sendall(data)
    time.sleep(wait)
    then(s)


def shut(s):
    s.shutdown(socket.SHUT_WR)
    s.recv(100)
    s.close()


TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
WAYS = {
    "port-check": lambda: send(b""),
    "port-check-reset": lambda: send(b"", reset),
    "slow-check": lambda: send(b"", wait=1.0),
    "half-close": lambda: send(b"", shut),
    "plain-http": lambda: send(b"GET /health HTTP/1.1\r\nHost: etcd\r\n\r\n", shut),
    "one-byte": lambda: send(b"\x16"),
    "garbage": lambda: send(bytes(range(64)), shut),
    "cut-hello": lambda: send(hello()[:60]),
    "cut-hello-reset": lambda: send(hello()[:60], reset, 0.1),
    "hello-then-gone": lambda: send(hello(), wait=0.1),
    "hello-then-reset": lambda: send(hello(), reset, 0.1),
    "no-cert-tls12": lambda: tls(most=TLS12),
    "no-cert-tls13": lambda: tls(least=TLS13),
    "other-ca": lambda: tls(ca="other-ca", certificate="client", least=TLS13),
    "other-ca-tls12": lambda: tls(ca="other-ca", certificate="client", most=TLS12),
    "other-name": lambda: tls(ca="ca", certificate="client"),
    "unknown-issuer": lambda: tls(certificate="stranger"),
    "expired": lambda: tls(certificate="expired"),
    "expired-tls12": lambda: tls(certificate="expired", most=TLS12),
    "server-cert-only": lambda: tls(certificate="serveronly"),
    "no-common-cipher": lambda: tls(ciphers="AES128-SHA256", most=TLS12),
    "old-tls": lambda: send(hello(ca=None, least=ssl.TLSVersion.TLSv1, most=ssl.TLSVersion.TLSv1, ciphers="ALL:@SECLEVEL=0"), shut),
}

if WAY == "list":
    print("\n".join(WAYS))
else:
    WAYS[WAY]()
