/** Agents that speak to a proxy, in a chunk of the bundle (stage0/hot.ts says why it is imported here). */
import '../hot.ts';

export { HttpProxyAgent } from 'http-proxy-agent';
export { HttpsProxyAgent } from 'https-proxy-agent';
