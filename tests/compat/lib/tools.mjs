/** Programs that the scenarios need besides Node. A missing one fails the run. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { runToEnd } from './process.mjs';

const TOOLS = [
  { argv: ['redis-server', '--version'], install: 'install the package redis-server' },
  { argv: ['openssl', 'version'], install: 'install the package openssl' },
  {
    argv: ['unshare', '--map-root-user', '--mount', 'true'],
    install: 'install the package util-linux, and allow user namespaces (or run as root)',
  },
];

export async function requireTools() {
  for (const { argv, install } of TOOLS) {
    const { code, output } = await runToEnd(argv);
    if (code !== 0) throw new Error(`the harness needs "${argv.join(' ')}" to work; ${install}. It said: ${output.trim() || `exit code ${code}`}`);
  }
}

/** A self-signed certificate in `dir`: { cert, key }, the paths of the files. */
export async function makeCertificate(dir, commonName) {
  const cert = path.join(dir, 'cert.pem');
  const key = path.join(dir, 'key.pem');
  const made = await runToEnd([
    'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
    '-subj', `/CN=${commonName}`, '-keyout', key, '-out', cert,
  ]);
  if (made.code !== 0) throw new Error(`openssl made no certificate: ${made.output.trim().slice(-300)}`);
  return { cert, key };
}

/** Command prefix that makes `hosts` ({ name: address }) resolvable besides localhost. */
export function withHosts(dir, hosts) {
  const file = path.join(dir, 'hosts');
  const lines = ['127.0.0.1 localhost', ...Object.entries(hosts).map(([name, address]) => `${address} ${name}`)];
  writeFileSync(file, `${lines.join('\n')}\n`);
  return ['unshare', '--map-root-user', '--mount', 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"', file];
}
